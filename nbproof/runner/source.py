"""Notebooks as source: the cells a person wrote, and nothing that running them leaves behind."""

import json
import re
import sys
from pathlib import Path

from nbproof.notebook.errors import UserError

# What a run or an editor adds to metadata: times, versions, states of outputs. The rest is source.
ADDED = {"language_info", "papermill", "widgets", "signature", "failure", "arithmetic",
         "execution", "executionInfo", "ExecuteTime", "outputId", "scrolled", "trusted"}
CONCLUSION = re.compile(r"(?ims)^##+ (?:what (?:we|it) learned|conclusions?|the answer|in short)\b"
                        r"[^\n]*$(.*?)(?=^#{1,6} |\Z)")
# git's own, at the start of a line, and nbdime's, at the start of one in a cell.
MARKS = re.compile(r"""(?m)^(\s*")?<{7} \w""")
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def read(path: Path) -> dict:
    """Return a notebook as plain JSON (nbformat is slow to import); UserError if it is none."""
    name = f"{path.parent.name}/{path.name}"
    try:
        text = path.read_text(encoding="utf-8-sig")
        if MARKS.search(text):
            raise UserError(f"{name} has the marks of a merge conflict (<<<<<<<): edit it, or take "
                            f"one side (git checkout --ours {name}), then run again.")
        notebook = json.loads(text)
        for cell in notebook["cells"]:  # what all of nbproof relies on
            code(cell), cell["cell_type"].strip, cell["metadata"].items
        if notebook["nbformat"] != 4 or not {"metadata", "nbformat_minor"} <= notebook.keys():
            raise KeyError("nbformat")
    except FileNotFoundError:
        raise UserError(f"{name} does not exist: write it, or remove its stage from "
                        "dvc.yaml.") from None
    except ValueError as error:  # not JSON, or not UTF-8
        raise UserError(f"{name} is not a notebook: {error}.") from None
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{name} is not a notebook of format 4, or lacks something that every "
                        "cell has: open and save it in JupyterLab.") from None
    return notebook


def check_kernel(notebook: dict, name: str) -> None:
    """Raise UserError where the notebook `name` is not for Python: R's `x = 3` would run, too."""
    kernel, info = (notebook["metadata"].get(key) or {} for key in ("kernelspec", "language_info"))
    language = kernel.get("language") or info.get("name") or kernel.get("name") or "python"
    if "py" not in language.lower():
        raise UserError(f"{name} is written for {kernel.get('display_name', language)}, and only "
                        "Python is run: choose a Python kernel in JupyterLab, or run the notebook "
                        "by an ordinary command in dvc.yaml.")


def code(cell: dict) -> str:
    """Return a cell's source, which a file may hold as one string or as lines."""
    return "".join(cell["source"])


def counted(cells: list[dict]) -> list[dict]:
    """Return the cells of the source: without the one that papermill adds for the values."""
    added = "injected-parameters"
    return [cell for cell in cells if added not in cell["metadata"].get("tags", [])]


def conclusion(cells: list[dict]) -> str:
    """Return the Markdown below the last heading such as "What we learned" (see CONCLUSION): that
    of its cell and what code cells show until the next heading; empty where there is none."""
    texts = []
    for cell in cells:
        shown = [output.get("data", {}).get("text/markdown", "")
                 for output in cell.get("outputs", [])]
        texts += map("".join, [cell["source"]] if cell["cell_type"] == "markdown" else shown)
    return "".join(CONCLUSION.findall("\n\n".join(filter(None, texts)))[-1:]).strip()


def strip(notebook: dict, outputs: bool = False) -> dict:
    """Take out, in place, all that is ADDED, and outputs and counts unless `outputs` stay; return
    the notebook."""
    metadata = _source_of(notebook["metadata"])
    # The display name of python3 differs from machine to machine; another kernel is the author's.
    if (metadata.get("kernelspec") or KERNEL).get("name") == KERNEL["name"]:
        metadata["kernelspec"] = dict(KERNEL)
    notebook["metadata"] = metadata
    notebook["nbformat_minor"] = max(notebook["nbformat_minor"], 5)
    ids = [cell.get("id") for cell in notebook["cells"]]
    unique = None not in ids and len({*ids}) == len(ids)  # else nbformat would give random ones
    for number, cell in enumerate(notebook["cells"], start=1):
        if not unique:
            cell["id"] = f"cell-{number}"
        cell["metadata"] = _source_of(cell["metadata"])
        if cell["cell_type"] == "code" and not outputs:
            cell["outputs"], cell["execution_count"] = [], None
    return notebook


def _source_of(metadata: dict) -> dict:
    return {key: value for key, value in metadata.items()
            if key not in ADDED and (key, value) != ("tags", [])}


def text(notebook: dict) -> str:
    """Return the file that JupyterLab would save for a notebook in plain JSON, byte for byte."""
    for cell in notebook["cells"]:
        cell["source"] = code(cell).splitlines(keepends=True)
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def save_source_only(model: dict, path: str, contents_manager, **_) -> None:
    """Strip what JupyterLab saves below notebooks/ (pre_save_hook); the screen keeps outputs."""
    below = path.strip("/").startswith("notebooks/")
    if below and model["type"] == "notebook" and model["content"]:
        strip(model["content"])


if __name__ == "__main__":  # git's filter: a notebook comes in, its source goes out
    try:
        sys.stdout.buffer.write(text(strip(json.load(sys.stdin.buffer))).encode())
    except (ValueError, KeyError, TypeError):
        sys.exit("This is no notebook, so git keeps it as it is.")
