"""Notebooks as source: only what a person wrote is kept."""

import copy
import json

import nbformat
import pytest

from nbproof.runner import source


@pytest.fixture
def executed():
    output = nbformat.v4.new_output("stream", text="1\n")
    cell = nbformat.v4.new_code_cell("x = 1\nx", execution_count=3, outputs=[output], id="kept")
    cell.metadata = nbformat.from_dict({"tags": ["parameters"], "execution": {"iopub": "now"}, "trusted": True})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# é"), cell])
    notebook.metadata = nbformat.from_dict({"language_info": {"version": "3.99"}, "widgets": {}, "papermill": {}})
    return notebook


def test_only_the_source_stays(executed):
    stripped = source.strip(copy.deepcopy(executed))
    assert [cell.source for cell in stripped.cells] == ["# é", "x = 1\nx"] and stripped.cells[1].id == "kept"
    assert stripped.cells[1].metadata == {"tags": ["parameters"]}
    assert stripped.cells[1].outputs == [] and stripped.cells[1].execution_count is None
    assert stripped.metadata == {"kernelspec": source.KERNEL}
    nbformat.validate(stripped)
    assert source.strip(copy.deepcopy(stripped)) == stripped


def test_what_people_and_other_tools_say_of_cells_stays(executed):
    """Slides, ids of other tools, collapsed cells; not the times and states that running leaves there."""
    kept = {"slideshow": {"slide_type": "slide"}, "collapsed": True, "id": "of Colab", "vscode": {"languageId": "sql"}}
    executed.cells[0].metadata = nbformat.from_dict({**kept, "tags": [], "executionInfo": {"elapsed": 3}})
    executed.metadata["rise"] = {"scroll": True}
    stripped = source.strip(copy.deepcopy(executed))
    assert stripped.cells[0].metadata == kept
    assert stripped.metadata == {"kernelspec": source.KERNEL, "rise": {"scroll": True}}


def test_files_are_written_only_where_something_changes(executed, tmp_path):
    path = tmp_path / "x.ipynb"
    nbformat.write(executed, path)
    assert source.strip_file(path) and not source.strip_file(path)
    saved = nbformat.writes(nbformat.read(path, as_version=4)) + "\n"
    assert path.read_text(encoding="utf-8") == saved  # as JupyterLab saves it


def test_old_notebooks_without_ids_get_the_same_ones_each_time(tmp_path):
    path = tmp_path / "x.ipynb"
    cells = [{"cell_type": "markdown", "metadata": {}, "source": "a\nb"}]
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 2, "metadata": {}, "cells": cells}))
    assert source.strip_file(path)
    nbformat.validate(nbformat.read(path, as_version=4))
    made = {"cell_type": "markdown", "id": "cell-1", "metadata": {}, "source": ["a\n", "b"]}
    assert json.loads(path.read_text())["cells"] == [made]


def test_a_pasted_picture_stays(tmp_path):
    """JupyterLab keeps it in the cell as an attachment."""
    cell = nbformat.v4.new_markdown_cell("![](attachment:a.png)", attachments={"a.png": {"image/png": "AA=="}})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "x.ipynb")
    source.strip_file(tmp_path / "x.ipynb")
    assert source.read(tmp_path / "x.ipynb")["cells"][0]["attachments"] == {"a.png": {"image/png": "AA=="}}


@pytest.mark.parametrize("path, stripped", [
    ("notebooks/x.ipynb", True), ("/notebooks/sub/x.ipynb", True), ("reports/x.ipynb", False), ("x.ipynb", False),
])
def test_jupyter_saves_source_only_below_notebooks(executed, path, stripped):
    model = {"type": "notebook", "content": json.loads(nbformat.writes(executed))}
    source.save_source_only(model=model, path=path, contents_manager=None)
    assert (model["content"]["cells"][1]["outputs"] == []) is stripped
