"""What a cell shows: cut where it is too large for a page, and looked through for what differs from run to run."""

import datetime
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat

from nbproof.runner.source import counted

LONGEST = 1_000_000  # characters of one text
LARGEST = 8_000_000  # characters of one picture (base64), or of anything else that cannot be cut
WHOLE = 30_000_000  # characters of all outputs together
KEPT = 2_000  # characters at each end of a text that is cut
IGNORED = "nbval-ignore-output"  # nbval does not compare what was cut
WIDGET = "application/vnd.jupyter.widget-view+json"
MEMORY = re.compile(r"\bat 0x[0-9a-fA-F]{6,16}\b|<[^<>\n]{1,80} 0x[0-9a-fA-F]{8,16}\b")
CLOCK = re.compile(r"\b\d\d:\d\d:\d\d\b")
RATE = re.compile(r"\[\d[\d:]+<\d[\d:]*, *[\d.]+ ?[^\s\],]+\]")  # of a progress bar of tqdm


@dataclass(frozen=True)
class Part:
    """A text, a picture or anything else that the cell `number` shows, in the mapping `holder` under `kind`."""

    number: int
    cell: nbformat.NotebookNode
    holder: dict
    kind: str

    @property
    def is_text(self) -> bool:
        return self.kind in ("text", "text/plain")

    @property
    def size(self) -> int:
        """Its characters in the notebook's file."""
        value = self.holder.get(self.kind, "")
        return len(value if isinstance(value, str) else json.dumps(value))

    def cut(self, limit: str) -> tuple[int, int]:
        """Cut a long text in the middle, take away anything else, and say so in its place, where that makes it shorter.

        The characters that are gone, and by how many the notebook is shorter.
        """
        size, ends = self.size, 2 * KEPT if self.is_text and self.size > 3 * KEPT else 0
        note = f"[{_amount(size - ends)} of {_name(self)} left out here: {limit}.]"
        if size <= ends + len(note):
            return 0, 0
        if ends:
            note = f"{self.holder[self.kind][:KEPT]}\n{note}\n{self.holder[self.kind][-KEPT:]}"
        if not self.is_text:
            del self.holder[self.kind]
        self.holder["text" if self.kind == "text" else "text/plain"] = note
        self.cell.metadata.tags = sorted({*self.cell.metadata.get("tags", ()), IGNORED})
        return size - ends, size - len(note)


def shorten(notebook: nbformat.NotebookNode) -> list[str]:
    """Cut or leave out outputs that are too large for a page; what was done, a sentence for each cell and limit.

    Only what a person sees becomes shorter; what the cell wrote or computed is as it was.
    """
    parts, gone = list(_parts(notebook)), {}
    for part in parts:
        limit = LONGEST if part.is_text else LARGEST
        if part.size > limit:
            _cut(part, f"one output may have {limit / 1e6:g} MB", gone)
    left = sum(part.size for part in parts) - WHOLE
    for part in sorted(parts, key=lambda part: -part.size):
        if left > 0:
            left -= _cut(part, f"all outputs together may have {WHOLE / 1e6:g} MB", gone)
    return [f"cell {number}: {_amount(sum(size for size, _ in pieces))} "
            f"{f'of {pieces[0][1]}' if len(pieces) == 1 else f'in {len(pieces)} outputs'} left out of notebook and "
            f"page ({limit}). What the cell computed is whole." for (number, limit), pieces in gone.items()]


def _cut(part: Part, limit: str, gone: dict[tuple[int, str], list[tuple[int, str]]]) -> int:
    """Cut a part and note in `gone` what is gone; by how many characters the notebook is shorter."""
    name = _name(part)
    left_out, shorter = part.cut(limit)
    if left_out:
        gone.setdefault((part.number, limit), []).append((left_out, name))
    return shorter


def _name(part: Part) -> str:
    return "text" if part.is_text else part.kind


def _amount(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 50_000 else f"{size / 1e3:.1f} kB"


def _parts(notebook: nbformat.NotebookNode) -> Iterator[Part]:
    """All that the cells show."""
    for number, cell in enumerate(counted(notebook.cells), start=1):
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                yield Part(number, cell, output, "text")
            yield from (Part(number, cell, output.data, kind) for kind in list(output.get("data", ())))


def number_widgets(notebook: nbformat.NotebookNode) -> None:
    """Give widgets numbers in their order instead of random ids: what an id stood for ended with the kernel."""
    numbers: dict[str, int] = {}
    for part in _parts(notebook):
        if part.kind == WIDGET:
            view = part.holder[WIDGET]
            view["model_id"] = str(numbers.setdefault(view["model_id"], len(numbers) + 1))


def varying(notebook: nbformat.NotebookNode) -> list[str]:
    """What in the outputs differs from run to run or from machine to machine, one sentence for each cell that has it.

    Addresses in memory, the date and the time of the clock, folders of this machine, the rates of progress bars.
    """
    today = datetime.date.today().isoformat()
    places = {str(Path.cwd()), tempfile.gettempdir() + os.sep, str(Path.home()) + os.sep} - {"/", os.sep}
    said: dict[int, str] = {}
    for part in _parts(notebook):
        value = part.holder[part.kind]
        if part.number in said or part.kind.startswith("image/") or not isinstance(value, str):
            continue
        if found := _found(value, today, places):
            said[part.number] = (f"cell {part.number} shows {found[0]} ({found[1]!r}), so its output differs from run "
                                 "to run or from machine to machine: show something else.")
    return list(said.values())


def _found(text: str, today: str, places: set[str]) -> tuple[str, str] | None:
    if memory := MEMORY.search(text):
        return "an address in memory", memory[0][:60]
    if today in text and (clock := CLOCK.search(text)):
        return "the time of the clock", f"{today} {clock[0]}"
    if rate := RATE.search(text):
        return "the rate of a progress bar", rate[0][:60]
    for place in sorted(places):
        if place in text:
            return "a folder of this machine", place
    return None
