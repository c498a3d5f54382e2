"""What cells show that varies between runs: made the same where that is honest, else named."""

import datetime
import re

from nbproof.notebook.files import root
from nbproof.runner.source import counted

WIDGET = "application/vnd.jupyter.widget-view+json"
STYLED = re.compile(r"(<pandas[\w.]+\.Styler) at 0x[0-9a-fA-F]+>")
TABLE = re.compile(r"<table id=\"(T_\w+)\"")
ADDRESS = r"\bat 0x[0-9a-fA-F]{6,16}\b|<[^<>\n]{1,80} 0x[0-9a-fA-F]{8,16}\b"  # in memory
DURATION = r"\b(CPU times|Wall time): |\d .?s ± |\[\d[\d:]+<\d[\d:]*, [^\]]+/s\]"  # %time, tqdm


def _outputs(notebook: dict) -> list[tuple[int, dict]]:
    """Return each output that is no error, with its cell's number before it."""
    cells = enumerate(counted(notebook["cells"]), start=1)
    return [(number, output) for number, cell in cells for output in cell.get("outputs", ())
            if output["output_type"] != "error"]


def number_ids(notebook: dict) -> None:
    """Take random ids out: of widgets, whose kernel has ended, and of tables that pandas styled."""
    for number, (_, output) in enumerate(_outputs(notebook), start=1):
        data = output.get("data", {})
        if view := data.get(WIDGET):
            view["model_id"] = ""
        if STYLED.fullmatch(data.get("text/plain", "")):
            data["text/plain"] = STYLED.sub(r"\1>", data["text/plain"])
            if table := TABLE.search(data.get("text/html", "")):
                data["text/html"] = data["text/html"].replace(table[1], f"T_{number}")


def found(notebook: dict) -> list[str]:
    """Return a sentence for each output that shows what differs between runs or machines."""
    clock, folder = rf"{datetime.date.today()}.\d\d:\d\d:\d\d", re.escape(str(root()))
    pattern, sentences = re.compile("|".join([ADDRESS, DURATION, clock, folder])), []
    for number, output in _outputs(notebook):
        texts = [output["text"]] if output["output_type"] == "stream" else output["data"].values()
        text = "\n".join(text for text in texts if isinstance(text, str))
        if match := pattern.search(text):
            sentences.append(f"cell {number} shows {match[0][:60]!r}, which differs by run or by "
                             "machine: show something else.")
    return sentences
