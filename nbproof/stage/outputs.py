"""What a cell shows: cut where it is too large for a page, and looked through for what differs from run to run."""

import datetime
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat

LONGEST = 1_000_000  # characters of one text
LARGEST = 8_000_000  # characters of one picture (base64), or of anything else that cannot be cut
WHOLE = 30_000_000  # characters of all outputs together
KEPT = 2_000  # characters at each end of a text that is cut
IGNORED = "nbval-ignore-output"  # nbval does not compare what was cut
MEMORY = re.compile(r"\bat 0x[0-9a-fA-F]{6,16}\b|<[^<>\n]{1,80} 0x[0-9a-fA-F]{8,16}\b")
CLOCK = re.compile(r"\b\d\d:\d\d:\d\d\b")


def shorten(notebook: nbformat.NotebookNode) -> list[str]:
    """Cut or leave out outputs that are too large for a page; what was done, a sentence for each cell.

    Only what a person sees becomes shorter; what the cell wrote or computed is as it was.
    """
    said, sizes = [], []
    for number, cell in enumerate(notebook.cells, start=1):
        for holder, kind in _parts(cell):
            limit = LONGEST if _is_text(kind) else LARGEST
            if len(holder[kind]) > limit:
                said.append(_cut(number, cell, holder, kind, f"one output may have {limit / 1e6:g} MB"))
            sizes.append((len(holder[kind]) if kind in holder else 0, number, cell, holder, kind))
    total = sum(size for size, *_ in sizes)
    for size, number, cell, holder, kind in sorted(sizes, key=lambda entry: -entry[0]):
        if total <= WHOLE:
            break
        total -= size
        said.append(_cut(number, cell, holder, kind, f"all outputs together may have {WHOLE / 1e6:g} MB"))
    return said


def varying(notebook: nbformat.NotebookNode) -> list[str]:
    """What in the outputs differs from run to run or from machine to machine, one sentence for each cell that has it.

    Addresses in memory, the date and the time of the clock, folders of this machine.
    """
    today = datetime.date.today().isoformat()
    places = {str(Path.cwd()), tempfile.gettempdir() + os.sep, str(Path.home()) + os.sep} - {"/", os.sep}
    said = []
    for number, cell in enumerate(notebook.cells, start=1):
        for holder, kind in _parts(cell):
            if kind.startswith("image/") or not (found := _found(holder[kind], today, places)):
                continue
            what, text = found
            said.append(f"cell {number} shows {what} ({text!r}), so its output differs from run to run or from machine "
                        "to machine: show something else.")
            break
    return said


def _found(text: str, today: str, places: set[str]) -> tuple[str, str] | None:
    if memory := MEMORY.search(text):
        return "an address in memory", memory[0][:60]
    if today in text and (clock := CLOCK.search(text)):
        return "the time of the clock", f"{today} {clock[0]}"
    for place in sorted(places):
        if place in text:
            return "a folder of this machine", place
    return None


def _parts(cell: nbformat.NotebookNode) -> Iterator[tuple[dict, str]]:
    """Each text and picture that a cell shows, as the mapping that holds it and its key there."""
    for output in cell.get("outputs", ()):
        if output.output_type == "stream":
            yield output, "text"
        for kind in list(output.get("data", ())):
            if isinstance(output.data[kind], str):
                yield output.data, kind


def _is_text(kind: str) -> bool:
    return kind in ("text", "text/plain")


def _cut(number: int, cell, holder: dict, kind: str, limit: str) -> str:
    """Cut a text in the middle, or take away what cannot be cut; the sentence that says it, in the output, too."""
    value = holder[kind]
    left = len(value) - 2 * KEPT if _is_text(kind) else len(value)
    what = f"{left / 1e6:.1f} MB of {'text' if _is_text(kind) else kind}"
    note = f"{what} left out here: {limit}."
    if _is_text(kind):
        holder[kind] = f"{value[:KEPT]}\n[{note}]\n{value[-KEPT:]}"
    else:
        del holder[kind]
        holder["text/plain"] = f"[{note}]"
    cell.metadata.tags = sorted({*cell.metadata.get("tags", ()), IGNORED})
    return f"cell {number}: {what} left out of notebook and page ({limit}). What the cell computed is whole."
