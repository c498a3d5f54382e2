"""Secrets that a cell showed: taken out of an executed notebook before it is kept."""

import json
import os
import re

import nbformat

from nbproof.runner import source

NAMES = re.compile(r"(PASSWORD|SECRET|TOKEN|KEY|KEY_ID)$")
SHORTEST = 6  # characters of a value that nothing else has by chance


def take_out(notebook: nbformat.NotebookNode) -> str:
    """Empty outputs that hold a secret of the environment; the first one is noted as the failure, and returned.

    It names the cell and the variable, never the value; empty if there is none.
    """
    secrets = {name: json.dumps(value, ensure_ascii=False)[1:-1] for name, value in os.environ.items()
               if NAMES.search(name) and len(value) >= SHORTEST}
    found = []
    for number, cell in enumerate(source.counted(notebook.cells), start=1):
        said = json.dumps(cell.get("outputs"), ensure_ascii=False)
        if names := [name for name, value in secrets.items() if value in said]:
            found.append((number, names[0]))
            cell.outputs, cell.execution_count = [], None
    if not found:
        return ""
    number, name = found[0]
    reason = f"its output shows the value of {name}, so it is not kept"
    notebook.metadata.failure = {"cell": number, "error": "Secret", "reason": reason}
    return f"cell {number}: {reason}"
