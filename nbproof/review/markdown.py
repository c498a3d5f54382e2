"""Markdown that is safe on GitHub: text from a branch is shown as it is, and can do nothing.

Such text ends in a code span, a code fence or a Mermaid string. In the first two GitHub makes no mention, issue
reference, link, image or HTML of what it finds; what is left to take care of is that nothing inside can close them.
"""

import html
import math
import re
import textwrap
import unicodedata

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
URL = re.compile(r"https://[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/?=&%+#:-]*)?")
INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, direction, zero-width, unassigned, line separators


def plain(text: str) -> str:
    """`text` without terminal codes, line ends as \\n; control, direction and invisible characters shown as U+FFFD."""
    text = re.sub(r"\r\n?", "\n", ANSI.sub("", text))
    if text.isascii() and text.isprintable():
        return text
    return "".join("\ufffd" if unicodedata.category(each) in INVISIBLE and each not in "\n\t" else each
                   for each in text)


def clipped(text: str, length: int) -> str:
    """At most `length` characters of `text`; what is cut off shows as an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def line(text: object, length: int = 80) -> str:
    """`text` on one line of at most `length` characters, not yet safe for Markdown."""
    return clipped(" ".join(plain(str(text)[: 20 * length]).split()), length)


def ticks(text: str, least: int) -> str:
    """A run of backticks longer than any in `text`."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def code(text: object, length: int = 80) -> str:
    """A code span, for a paragraph or a table's cell. GitHub's tables can mistake an escaped bar: it is replaced."""
    inside = line(text, length).replace("|", "│") or " "
    around = ticks(inside, 1)
    space = " " if inside[0] == "`" or inside[-1] == "`" else ""
    return f"{around}{space}{inside}{space}{around}"


def fence(text: str, language: str = "text", lines: int = 10**6, width: int = 300, keep: str = "first") -> str:
    """A code fence with the first (or last) `lines` lines of `text`, each at most `width` characters long."""
    every = plain(text).strip("\n").split("\n")
    shown = [clipped(each, width) for each in (every[:lines] if keep == "first" else every[-lines:])]
    if language == "text":  # GitHub does not wrap a fence
        shown = [part.rstrip() for each in shown for part in textwrap.wrap(each, 100, drop_whitespace=False) or [""]]
    if (more := len(every) - lines) > 0:
        note = f"… {count(more, 'more line')}"
        shown = [*shown, note] if keep == "first" else [note, *shown]
    inside = "\n".join(shown)
    around = ticks(inside, 3)
    return f"{around}{language}\n{inside}\n{around}"


def summary(text: object, length: int = 80) -> str:
    """For the inside of an HTML tag such as <summary>, where Markdown is not read."""
    return f"<code>{html.escape(line(text, length))}</code>"


def label(text: object, length: int = 40) -> str:
    """A string of a Mermaid chart: letters, digits and a few harmless signs, the others as blanks; never empty."""
    return '"' + (" ".join(re.sub(r"[^\w .,:+-]", " ", line(text, length)).split()) or "-") + '"'


def link(text: str, url: object) -> str | None:
    """A link with our own `text`; None where `url` is not a plain https address."""
    return f"[{text}](<{url}>)" if isinstance(url, str) and len(url) <= 500 and URL.fullmatch(url) else None


def table(header: list[str], rows: list[list[str]], align: str) -> str:
    """A table; the cells are Markdown that is safe already, `align` has an l or r a column."""
    lines = [header, [{"l": ":--", "r": "--:"}[each] for each in align], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fold(title: str, body: str) -> str:
    """A fold that is closed at first; `title` is HTML that is safe already."""
    return f"<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>"


def is_number(value: object) -> bool:
    """Whether `value` is a finite number of a size that can be printed."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 10**300


def decimal(value: object) -> str:
    """A metric with four decimals where it is small; what is no number as code."""
    return f"{value:.4f}" if is_number(value) and abs(value) < 10 else shown(value)


def shown(value: object) -> str:
    """Any value of params.yaml or a metrics file; a dash for none."""
    if value is None or not is_number(value):
        return "–" if value is None else code(value, 60)
    short = f"{value:,}" if isinstance(value, int) and abs(value) < 10**15 else f"{value:.6g}"
    same = math.isclose(float(short.replace(",", "")), value, rel_tol=1e-9)
    return short if same else f"{value:.12g}"  # two values must not look the same


def change(before: object, now: object, digits: str = ".4f") -> str:
    """`now` - `before` with its sign; empty where one of them is no number."""
    if not (is_number(before) and is_number(now)):
        return ""
    return "0" if now == before else f"{now - before:+{digits if abs(now - before) < 10**6 else '.4g'}}"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
