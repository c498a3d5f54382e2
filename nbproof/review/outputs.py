"""What a reader sees of a notebook's outputs, and what changed in it. Sources and counts do not matter here."""

import difflib
import hashlib
import re

import nbformat

from nbproof.review.markdown import line, plain
from nbproof.runner.source import counted

CHARACTERS, LINES = 200_000, 400  # of an output that are read, of a cell that are compared
HEADING = re.compile(r" {0,3}#{1,6}\s+(.+?)\s*#*\s*")


def notebook(content: str | None) -> nbformat.NotebookNode | None:
    """An executed notebook that keeps to the format; None where it does not."""
    try:
        found = nbformat.reads(content or "", as_version=4)
        nbformat.validate(found)
        return found
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, nbformat.ValidationError):
        return None  # its readers raise all of these


def text_of(output: nbformat.NotebookNode) -> str:
    """The text that a reader sees of an output; of a figure the beginning of its digest."""
    if output.output_type == "stream":
        return _joined(output.text)
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    data = output.get("data", {})
    if images := [_joined(value) for kind, value in data.items() if kind.startswith("image/")]:
        return f"[figure {hashlib.sha256(''.join(images).encode('utf-8', 'replace')).hexdigest()[:8]}]"
    return _joined(next((data[kind] for kind in ("text/markdown", "text/plain", "text/html") if kind in data), ""))


def _joined(text: object) -> str:
    return "".join(map(str, text)) if isinstance(text, list) else str(text)


def seen(executed: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """Each line of the outputs, and the place of its cell: number (from 1) and nearest heading above."""
    heading, found = "", []
    for number, cell in enumerate(counted(executed.cells), start=1):
        if cell.cell_type == "markdown":
            headings = [match[1] for each in cell.source.splitlines() if (match := HEADING.fullmatch(each[:200]))]
            heading = f", {line(headings[-1], 60)}" if headings else heading
        elif cell.cell_type == "code":
            texts = [plain(text_of(output)[:CHARACTERS]).strip("\n") for output in cell.outputs]
            lines = [each.rstrip() for text in texts if text for each in text.split("\n")]
            if len(lines) > LINES:
                lines = [*lines[:LINES], f"… {len(lines) - LINES} more lines, not compared"]
            found += [(each, f"cell {number}{heading}") for each in lines]
    return found


def changes(old: nbformat.NotebookNode, new: nbformat.NotebookNode) -> list[str]:
    """The lines of a unified diff of the outputs; each hunk is headed by the place of its first change."""
    before, now = seen(old), seen(new)
    was, here = [text for text, _ in before], [text for text, _ in now]
    diff = []
    for group in difflib.SequenceMatcher(None, was, here).get_grouped_opcodes(2):
        _, start, end, new_start, new_end = next(each for each in group if each[0] != "equal")
        place = now[new_start][1] if new_end > new_start else f"{before[start][1]} of the base"
        diff.append(f"@@ {place} @@")
        for kind, start, end, new_start, new_end in group:
            if kind == "equal":
                diff += [f" {each}" for each in was[start:end]]
                continue
            diff += [f"-{each}" for each in was[start:end]] + [f"+{each}" for each in here[new_start:new_end]]
    return diff
