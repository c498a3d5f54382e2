"""What changed in a notebook's outputs: text as a unified diff, figures by name. Sources and counts do not matter here."""

import difflib
import re
from dataclasses import dataclass

import nbformat

from pipeline.report.safe import line, plain

CHARACTERS = 200_000  # of an output that are read
LINES = 400  # of a cell's text that are compared; difflib's time grows with their square
HEADING = re.compile(r" {0,3}#{1,6}\s+(.+?)\s*#*\s*")


@dataclass(frozen=True)
class Changes:
    """`diff` holds lines of a unified diff; `figures` what happened to each figure and the heading above it."""

    diff: list[str]
    cells: int
    figures: list[tuple[str, str]]


@dataclass(frozen=True)
class Cell:
    """A code cell's outputs, with its number (from 1) and the nearest heading above."""

    number: int
    heading: str
    lines: list[str]
    figures: list[str]


def text_of(output: nbformat.NotebookNode) -> str:
    """The text that a reader sees of an output: none of a figure."""
    if output.output_type == "stream":
        return _joined(output.text)
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    data = output.get("data", {})
    if any(kind.startswith("image/") for kind in data):
        return ""
    return _joined(next((data[kind] for kind in ("text/markdown", "text/plain", "text/html") if kind in data), ""))


def _joined(text: object) -> str:
    return "".join(map(str, text)) if isinstance(text, list) else str(text)


def cells(notebook: nbformat.NotebookNode) -> dict[str, Cell]:
    """The code cells of an executed notebook by id."""
    heading, found = "", {}
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "markdown":
            headings = [match[1] for match in (HEADING.fullmatch(each[:200]) for each in cell.source.splitlines()) if match]
            heading = line(headings[-1], 60) if headings else heading
        elif cell.cell_type == "code":
            texts = [plain(text_of(output)[:CHARACTERS]).strip("\n") for output in cell.outputs]
            lines = [each.rstrip() for text in texts if text for each in text.split("\n")]
            if len(lines) > LINES:
                lines = [*lines[:LINES], f"… {len(lines) - LINES} more lines, not compared"]
            images = [_joined(value) for output in cell.outputs for kind, value in output.get("data", {}).items() if kind.startswith("image/")]
            found[cell.get("id", f"cell {number}")] = Cell(number, heading, lines, images)
    return found


def changes(old: nbformat.NotebookNode, new: nbformat.NotebookNode) -> Changes:
    """Compare the outputs of two executed copies, cells matched by id; those that only `old` has come last."""
    before, now = cells(old), cells(new)
    none = Cell(0, "", [], [])
    diff, figures, count = [], [], 0
    for key in [*now, *(key for key in before if key not in now)]:
        was, here = before.get(key, none), now.get(key, none)
        place = here if key in now else was
        if was.lines != here.lines:
            count += 1
            where = f"cell {place.number}{' of the base' if place is was else ''}{', ' + place.heading if place.heading else ''}"
            for each in list(difflib.unified_diff(was.lines, here.lines, n=2, lineterm=""))[2:]:
                diff.append(f"@@ {where} @@" if each.startswith("@@ ") else each)
        for index in range(max(len(was.figures), len(here.figures))):
            pair = was.figures[index : index + 1], here.figures[index : index + 1]
            if pair[0] != pair[1]:
                figures.append(("changed" if all(pair) else "new" if pair[1] else "gone", place.heading))
    return Changes(diff, count, figures)
