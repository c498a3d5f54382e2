"""Text from a branch in Markdown, shown as it is: in a code span, a code fence, a Mermaid string.

Nothing inside can close these. What GitHub would act on, sanitise.py breaks in the whole report.
"""

import html
import re
import textwrap
import unicodedata

from nbproof.pipeline.numbers import count, is_number, number

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
# control, direction, zero-width and unassigned characters, line separators
INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def plain(text: str) -> str:
    """Return `text` without terminal codes, line ends as \\n, invisible characters as U+FFFD."""
    text = re.sub(r"\r\n?", "\n", ANSI.sub("", text))
    if text.isascii() and text.isprintable():
        return text
    return "".join("\ufffd" if unicodedata.category(sign) in INVISIBLE and sign not in "\n\t"
                   else sign for sign in text)


def clipped(text: str, length: int) -> str:
    """Return at most `length` characters; what is cut off shows as an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def line(text: object, length: int = 80) -> str:
    """Return `text` on one line of at most `length` characters, not yet safe for Markdown."""
    return clipped(" ".join(plain(str(text)[: 20 * length]).split()), length)


def _ticks(text: str, least: int) -> str:
    """Return a run of backticks longer than any in `text`."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def code(text: object, length: int = 80) -> str:
    """Return a code span. GitHub's tables can mistake an escaped bar: it is replaced."""
    inside = line(text, length).replace("|", "│") or " "
    ticks = _ticks(inside, 1)
    space = " " if inside[0] == "`" or inside[-1] == "`" else ""
    return f"{ticks}{space}{inside}{space}{ticks}"


def fence(text: str, language: str = "text", lines: int = 10**6, keep: str = "first",
          width: int = 300) -> str:
    """Return a code fence with the first (or last) `lines` lines, each at most `width` long."""
    rows = plain(text).strip("\n").split("\n")
    shown = [clipped(row, width) for row in (rows[:lines] if keep == "first" else rows[-lines:])]
    if language == "text":  # GitHub does not wrap a fence
        shown = [part.rstrip() for row in shown
                 for part in textwrap.wrap(row, 100, drop_whitespace=False) or [""]]
    if (more := len(rows) - lines) > 0:
        shown.insert(len(shown) if keep == "first" else 0, f"… {count(more, 'more line')}")
    inside = "\n".join(shown)
    return f"{_ticks(inside, 3)}{language}\n{inside}\n{_ticks(inside, 3)}"


def label(text: object, length: int = 40) -> str:
    """Return a string of a Mermaid chart: letters, digits and harmless signs; never empty."""
    return '"' + (" ".join(re.sub(r"[^\w .,:+-]", " ", line(text, length)).split()) or "-") + '"'


def summary(text: object, length: int = 80) -> str:
    """Return code for a <summary>, where Markdown is not read."""
    return f"<code>{html.escape(line(text, length))}</code>"


def value(content: object) -> str:
    """Return a metric or a parameter: a number as people read it, anything else as code."""
    return number(content) if content is None or is_number(content) else code(content, 60)
