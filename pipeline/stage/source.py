"""Notebooks as source: the cells a person wrote, and nothing that running them leaves behind."""

from pathlib import Path

import nbformat

from pipeline.stage.files import write_whole

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def strip(notebook: dict) -> dict:
    """Take outputs, execution counts and what editors note about themselves out of `notebook` (a node or plain JSON), in place."""
    notebook["metadata"] = nbformat.from_dict({"kernelspec": KERNEL})
    notebook["nbformat_minor"] = max(notebook["nbformat_minor"], 5)
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags")
        cell["metadata"] = nbformat.from_dict({"tags": tags} if tags else {})
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return notebook


def text(notebook: nbformat.NotebookNode) -> str:
    """The file that JupyterLab would save, byte for byte."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def stripped(content: str) -> str:
    """A notebook file's `content` as it should be kept; ValueError if it is not a notebook."""
    return text(strip(nbformat.reads(content, as_version=4)))


def strip_file(path: Path) -> bool:
    """Strip the notebook at `path` where it is not stripped yet; whether it was written."""
    before = path.read_text(encoding="utf-8")
    after = stripped(before)
    if changed := before != after:
        write_whole(path, after)
    return changed


def save_source_only(model: dict, path: str, contents_manager, **_) -> None:
    """Jupyter's pre_save_hook: what is saved below notebooks/ is source; the outputs stay on the screen until it is reloaded."""
    if model["type"] == "notebook" and model["content"] and Path(path.strip("/")).parts[:1] == ("notebooks",):
        strip(model["content"])
