"""What cells show: cut where it is too large for a page, searched for what varies between runs."""

import datetime
import json
import re

from nbproof.notebook.files import root
from nbproof.runner.source import counted

ONE, ALL = 5_000_000, 30_000_000  # characters of one output, of all outputs of a notebook
ENDS = 2_000  # characters that stay at each end of a long text
WIDGET = "application/vnd.jupyter.widget-view+json"


def _outputs(notebook: dict) -> list[tuple[int, dict, dict]]:
    """Return each output that is no error, with its cell's number and its cell before it."""
    cells = enumerate(counted(notebook["cells"]), start=1)
    return [(number, cell, output) for number, cell in cells for output in cell.get("outputs", ())
            if output["output_type"] != "error"]


def shorten(notebook: dict) -> list[str]:
    """Cut outputs that are too large, the largest first; return one sentence for each cell."""
    sizes = [(len(json.dumps(found[-1])), *found) for found in _outputs(notebook)]
    total, cut = sum(size for size, *_ in sizes), {}
    for size, number, cell, output in sorted(sizes, key=lambda found: -found[0]):
        if size > ONE or (total > ALL and size > 500):  # what replaces it has fewer than 500
            _cut(output, f"[{size / 1e6:.3g} MB left out here]")
            total += len(json.dumps(output)) - size
            cut[number] = cut.get(number, 0) + size
            tags = cell["metadata"].get("tags", [])
            cell["metadata"]["tags"] = sorted({*tags, "nbval-ignore-output"})
    return [f"cell {number}: {size / 1e6:.3g} MB of output left out of notebook and page (one "
            f"output may have {ONE / 1e6:g} MB, all together {ALL / 1e6:g} MB). What the cell "
            "computed is whole." for number, size in sorted(cut.items())]


def _cut(output: dict, note: str) -> None:
    """Leave `note` alone, between the ends of the text where that is long."""
    is_stream = output["output_type"] == "stream"
    text = output["text"] if is_stream else output["data"].get("text/plain", "")
    if len(text) > 3 * ENDS:
        note = f"{text[:ENDS]}\n{note}\n{text[-ENDS:]}"
    output["text" if is_stream else "data"] = note if is_stream else {"text/plain": note}


def number_widgets(notebook: dict) -> None:
    """Replace the random ids of widgets by numbers: what they stood for ended with the kernel."""
    numbers: dict[str, int] = {}
    for *_, output in _outputs(notebook):
        if view := output.get("data", {}).get(WIDGET):
            view["model_id"] = str(numbers.setdefault(view["model_id"], len(numbers) + 1))


def varying(notebook: dict) -> list[str]:
    """Return a sentence for each cell that shows what differs between runs or machines."""
    took = r"\b(CPU times|Wall time): |\d .?s ± |\[\d[\d:]+<\d[\d:]*, [^\]]+/s\]"  # %time, tqdm
    patterns = {
        "an address in memory": r"\bat 0x[0-9a-fA-F]{6,16}\b|<[^<>\n]{1,80} 0x[0-9a-fA-F]{8,16}\b",
        "the time of the clock": rf"{datetime.date.today()}.\d\d:\d\d:\d\d",
        "how long something took": took,
        "a folder of this machine": re.escape(str(root())),
    }
    found: dict[int, str] = {}
    for number, _, output in _outputs(notebook):
        texts = [output["text"]] if output["output_type"] == "stream" else output["data"].values()
        text = "\n".join(text for text in texts if isinstance(text, str))
        for what, pattern in patterns.items():
            if match := re.search(pattern, text):
                found.setdefault(number, f"cell {number} shows {what} ({match[0][:60]!r}), so its "
                                 "output differs by run or by machine: show something else.")
    return list(found.values())
