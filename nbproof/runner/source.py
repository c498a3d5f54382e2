"""Notebooks as source: the cells a person wrote, and nothing that running them leaves behind."""

import json
import sys
from pathlib import Path

from nbproof.notebook.errors import UserError, meant
from nbproof.notebook.files import write_whole

# What a run or an editor notes beside the source: times, versions, states of outputs. All other metadata is source.
NOTED = {"language_info", "papermill", "widgets", "signature", "failure", "arithmetic", "execution", "executionInfo",
         "ExecuteTime", "outputId", "scrolled", "trusted"}
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def read(path: Path) -> dict:
    """The notebook at `path` as plain JSON (nbformat takes a second to import); UserError if it is not one."""
    shown = f"{path.parent.name}/{path.name}"
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        close = meant(path.name, (each.name for each in path.parent.glob("*.ipynb")))
        raise UserError(f"{shown} is not there, and dvc.yaml names it: put it there, or take its stage out.{close}"
                      ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{shown} is not a notebook: {error}.") from None
    kinds = {"cells": list, "metadata": dict, "nbformat": int, "nbformat_minor": int}
    whole = isinstance(notebook, dict) and all(isinstance(notebook.get(key), kind) for key, kind in kinds.items())
    if not whole or notebook["nbformat"] != 4:
        raise UserError(f"{shown} is not a notebook of format 4: open and save it in JupyterLab.")
    for number, cell in enumerate(notebook["cells"], start=1):
        if not _is_cell(cell):
            raise UserError(f"{shown} is not a notebook: cell {number} lacks its type, metadata or source; open and save "
                          "it in JupyterLab.")
    return notebook


def _is_cell(cell: object) -> bool:
    """Whether `cell` has what every cell of a notebook has."""
    if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
        return False
    if not isinstance(cell.get("metadata"), dict):
        return False
    lines = cell.get("source")
    return isinstance(lines, str) or (isinstance(lines, list) and all(isinstance(line, str) for line in lines))


def code(cell: dict) -> str:
    """A cell's source, which a file may hold as one string or as lines."""
    return "".join(cell["source"])


def counted(cells: list[dict]) -> list[dict]:
    """The cells as a reader of the source counts them: without the one that papermill adds for the values."""
    return [cell for cell in cells if "injected-parameters" not in cell["metadata"].get("tags", [])]


def strip(notebook: dict) -> dict:
    """Take outputs, counts and what is NOTED out of `notebook` (a node or plain JSON), in place."""
    notebook["metadata"] = _source_of(notebook["metadata"]) | {"kernelspec": dict(KERNEL)}
    notebook["nbformat_minor"] = max(notebook["nbformat_minor"], 5)
    for number, cell in enumerate(notebook["cells"], start=1):
        cell["metadata"] = _source_of(cell["metadata"])
        cell.setdefault("id", f"cell-{number}")
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return notebook


def _source_of(metadata: dict) -> dict:
    return {key: value for key, value in metadata.items() if key not in NOTED and (key, value) != ("tags", [])}


def text(notebook: dict) -> str:
    """The file that JupyterLab would save for a notebook in plain JSON, byte for byte."""
    for cell in notebook["cells"]:
        cell["source"] = code(cell).splitlines(keepends=True)
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def stripped(content: str) -> str:
    """A notebook file's `content` as it should be kept; ValueError if it is not a notebook."""
    return text(strip(json.loads(content)))


def strip_file(path: Path) -> bool:
    """Strip the notebook at `path` where it is not stripped yet; whether it was written."""
    after = text(strip(read(path)))
    if changed := after != path.read_text(encoding="utf-8"):
        write_whole(path, after)
    return changed


def save_source_only(model: dict, path: str, contents_manager, **_) -> None:
    """Jupyter's pre_save_hook: below notebooks/ source alone is saved; outputs stay on the screen until a reload."""
    if model["type"] == "notebook" and model["content"] and Path(path.strip("/")).parts[:1] == ("notebooks",):
        strip(model["content"])


if __name__ == "__main__":  # the filter through which git reads notebooks: a file in, its source out
    try:
        sys.stdout.buffer.write(stripped(sys.stdin.buffer.read().decode()).encode())
    except (ValueError, KeyError):
        sys.exit("This is no notebook, so git keeps it as it is.")
