"""What a reader sees changed between two executed copies of a notebook, as text and as HTML."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import nbformat
from bs4 import BeautifulSoup, Tag
from nbdime import diff_notebooks

from nbproof.review.markdown import line, plain
from nbproof.runner.source import counted

BLOCKS = ("p", "tr", "li", "pre", "h1", "h2", "h3", "h4", "div", "br", "blockquote")
CELLS = ["th", "td"]
HIDDEN = "Numbers of the test data are shown on the default branch alone."
WORD = re.compile(r"<[^>]*>|\s+|[+-]?\w+(?:[.,]\w+)*%?|.")  # a full stop is no part of a number


def notebook(content: str | None) -> nbformat.NotebookNode | None:
    """Return an executed notebook that keeps to the format; None where it does not."""
    try:
        executed = nbformat.reads(content or "", as_version=4)
        nbformat.validate(executed)
        return executed
    except Exception:  # its readers raise of every kind for what a branch can write
        return None


def hide(executed: nbformat.NotebookNode | None, keys: list[str]) -> None:
    """Replace the outputs of each cell that has the tag `test`, or names one of the metrics."""
    for cell in executed.cells if executed else []:
        if cell.get("outputs") and ("test" in cell.metadata.get("tags", [])
                                    or any(key in cell.source for key in keys)):
            cell.outputs = [nbformat.v4.new_output("stream", text=HIDDEN)]


def printed(cell: nbformat.NotebookNode) -> str:
    """Return what a cell printed."""
    return "".join(output.text for output in cell.get("outputs", []) if "text" in output)


@dataclass(frozen=True)
class CellDiff:
    """A cell that differs; `title` has its number and the heading above.

    `old` and `new` are source and outputs, without figures, as HTML with the changes marked, ""
    where nothing changed. `figures` are the images that differ, (old, new), None where a side has
    none. `hunk` has the lines of a unified diff of what the outputs show."""

    title: str
    old: str
    new: str
    figures: tuple[tuple, ...]
    hunk: tuple[str, ...]


def compare(old: nbformat.NotebookNode, new: nbformat.NotebookNode, before: BeautifulSoup,
            now: BeautifulSoup) -> list[CellDiff]:
    """Return the cells that a reader sees changed, as the pages `before` and `now` show them."""
    number, heading, differing = 0, "", []
    for was, here in _pairs(old, new):
        if here is not None:
            number += len(counted([here]))
            titles = re.findall(r"(?m)^ {0,3}#{1,6}\s+(.+?)\s*#*\s*$", here.source[:2000])
            is_heading = titles and here.cell_type == "markdown"
            heading = f", {line(titles[-1], 60)}" if is_heading else heading
        shown = [page.find(id=f"cell-id={cell.id}") if cell else None
                 for page, cell in ((before, was), (now, here))]
        if str(shown[0]) != str(shown[1]):
            place = f"Cell {number}" if here is not None else "Removed cell"
            differing.append(_cell(place + heading, *shown))
    return [cell for cell in differing if cell.old or cell.new or cell.figures]


def _cell(title: str, old: Tag | None, new: Tag | None) -> CellDiff:
    """Return how two cells differ, None where one is missing."""
    images = [side.find_all("img") if side else [] for side in (old, new)]
    figures = [(was, now) for was, now in zip_longest(*images)
               if not (was and now and was["src"] == now["src"])]
    lines = [_lines(side) for side in (old, new)]
    hunk = [f"@@ {title} @@" if text.startswith("@@") else text
            for text in [*difflib.unified_diff(*lines, n=2, lineterm="")][2:]]
    hunk = hunk or [f"@@ {title} @@"] * bool(figures)
    hunk += [f"! {(now or was)['alt']}" for was, now in figures]
    texts = [re.sub("<img[^>]*>", "", str(side or "")) for side in (old, new)]
    sides = _marked(*texts) if texts[0] != texts[1] else ("", "")
    return CellDiff(title, *sides, tuple(figures), tuple(hunk))


def _pairs(old: nbformat.NotebookNode, new: nbformat.NotebookNode) -> Iterator[tuple]:
    """Yield each cell with its counterpart, as nbdime pairs them; None where there is none."""
    diff = next((entry.diff for entry in diff_notebooks(old, new) if entry.key == "cells"), [])
    was, here = iter(old.cells), iter(new.cells)
    at = 0
    for entry in diff:
        yield from zip([next(was) for _ in range(entry.key - at)], here)
        at = max(at, entry.key)
        if entry.op == "addrange":
            yield from ((None, next(here)) for _ in entry.valuelist)
        elif entry.op == "removerange":
            yield from ((next(was), None) for _ in range(entry.length))
            at += entry.length
    yield from zip(was, here)


def _lines(cell: Tag | None) -> list[str]:
    """Return what the outputs show: a line for each block, rows of tables with bars."""
    outputs = "".join(map(str, cell.select(".output_area"))) if cell else ""
    text = BeautifulSoup(plain(outputs), "html.parser")
    for row in text.find_all("tr"):
        row.string = " │ ".join(column.get_text(" ", strip=True) for column in row.find_all(CELLS))
    for block in text.find_all(BLOCKS):
        block.append("\n")
    return [row for each in text.get_text().split("\n") if (row := each.strip())]


def _marked(old: str, new: str) -> list[str]:
    """Return the HTML of both sides, with the words marked that went and that came."""
    parts, sides = [WORD.findall(text) for text in (old, new)], ["", ""]
    for kind, *at in difflib.SequenceMatcher(None, *parts).get_opcodes():
        for side, mark in enumerate(("del", "ins")):
            text = "".join(parts[side][at[2 * side]:at[2 * side + 1]])
            marked = re.sub(r"(?<![^>])\s*([^<\s][^<]*)", rf"<{mark}>\1</{mark}>", text)
            sides[side] += text if kind == "equal" else marked  # a mark holds no tag
    return sides
