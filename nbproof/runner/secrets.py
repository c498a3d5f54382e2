"""Secrets of the environment: taken out of executed notebooks, found in results."""

import html
import json
import mmap
import os
import re
from collections.abc import Iterable
from pathlib import Path

from nbproof.runner.source import counted

NAMES = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|KEY|KEY_ID|_PAT)$")
SHORTEST = 6  # characters that do not occur by chance


def _known() -> dict[str, set[str]]:
    """Return the environment's secrets by variable: each value in all the ways it is written."""
    secrets = {}
    for name, value in os.environ.items():
        if NAMES.search(name) and len(value := value.strip()) >= SHORTEST:
            forms = {value, repr(value)[1:-1], html.escape(value), json.dumps(value)[1:-1]}
            # A notebook is JSON itself.
            secrets[name] = forms | {json.dumps(form, ensure_ascii=False)[1:-1] for form in forms}
    return secrets


def take_out(executed: dict) -> str:
    """Empty the outputs that show a secret; return the failure of the first, or an empty text.

    The failure, which the notebook holds too, names the cell and the variable, not the value.
    """
    secrets, failure = _known(), {}
    for number, cell in enumerate(counted(executed["cells"]), start=1):
        shown = json.dumps(cell.get("outputs"), ensure_ascii=False)
        names = [name for name, forms in secrets.items() if any(form in shown for form in forms)]
        if names:
            cell["outputs"], cell["execution_count"] = [], None
            reason = f"its output shows the value of {names[0]}, so it is not kept"
            failure = failure or {"cell": number, "error": "Secret", "reason": reason}
    if not failure:
        return ""
    executed["metadata"]["failure"] = failure
    return f"cell {failure['cell']}: {failure['reason']}"


def in_files(paths: Iterable[Path]) -> list[tuple[Path, str]]:
    """Return files, among `paths` and below them, that hold a secret, each with its variable."""
    found: list[tuple[Path, str]] = []
    secrets = _known()
    for file in (file for path in paths for file in (path, *path.rglob("*"))):
        if secrets and file.is_file() and file.stat().st_size:
            with file.open("rb") as opened:  # mapped: a file may be larger than the memory
                content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            found += [(file, name) for name, forms in secrets.items()
                      if any(content.find(os.fsencode(form)) >= 0 for form in forms)][:1]
    return found
