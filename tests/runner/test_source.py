"""Notebooks as source: only what a person wrote is kept, and nothing of it changes."""

import copy
import json

import nbformat
import pytest

from nbproof.notebook.errors import UserError
from nbproof.runner import source

KEPT = {"tags": ["parameters"], "slideshow": {"slide_type": "slide"}, "id": "of Colab"}


@pytest.fixture
def executed():
    output = nbformat.v4.new_output("stream", text="1\n")
    cell = nbformat.v4.new_code_cell("x = 1\nx", execution_count=3, outputs=[output], id="kept")
    cell.metadata.update(KEPT | {"execution": {"iopub": "now"}, "trusted": True})
    picture = {"a.png": {"image/png": "AA=="}}  # pasted in JupyterLab
    story = nbformat.v4.new_markdown_cell("# é ![](attachment:a.png)", attachments=picture,
                                          metadata={"tags": [], "collapsed": True})
    notebook = nbformat.v4.new_notebook(cells=[story, cell])
    notebook.metadata.update(language_info={"version": "3.99"}, widgets={}, rise={"scroll": True})
    return notebook


def test_only_the_source_stays(executed):
    story = dict(executed.cells[0]) | {"metadata": {"collapsed": True}}
    stripped = source.strip(executed)
    nbformat.validate(stripped)
    assert stripped.cells[0] == story and stripped.cells[1].source == "x = 1\nx"
    assert stripped.cells[1].metadata == KEPT
    assert stripped.cells[1].outputs == [] and stripped.cells[1].execution_count is None
    assert stripped.metadata == {"kernelspec": source.KERNEL, "rise": {"scroll": True}}
    assert source.text(copy.deepcopy(stripped)) == nbformat.writes(stripped) + "\n"  # JupyterLab's
    assert source.strip(copy.deepcopy(stripped)) == stripped


@pytest.mark.parametrize("ids, expected", [
    (["same", "other", "same"], ["cell-1", "cell-2", "cell-3"]),
    ([None, "cell-1", None], ["cell-1", "cell-2", "cell-3"]),
    (["cell-2", "cell-1"], ["cell-2", "cell-1"]),
])
def test_missing_and_double_ids_become_the_same_ones_each_time(ids, expected):
    """F10: nbformat gives random ones, so the executed notebook differed in each run."""
    cells = [{"cell_type": "markdown", "metadata": {}, "source": "a\nb"} for _ in ids]
    for cell, name in zip(cells, ids):
        cell.update({"id": name} if name else {})
    stripped = source.strip({"nbformat": 4, "nbformat_minor": 2, "metadata": {}, "cells": cells})
    assert [cell["id"] for cell in stripped["cells"]] == expected
    read = nbformat.reads(source.text(stripped), as_version=4)
    assert [cell.id for cell in read.cells] == expected
    assert [cell["source"] for cell in stripped["cells"]] == [["a\n", "b"]] * len(ids)


@pytest.mark.parametrize("spec, info, language", [
    ({"name": "ir", "display_name": "R 4.3", "language": "R"}, None, "R 4.3"),
    ({"name": "julia-1.9"}, None, "julia-1.9"),
    (None, {"name": "julia"}, "julia"),
    ({"name": "conda-env-ml-py", "display_name": "ml", "language": "python"}, None, ""),
    ({"name": "python3", "display_name": ".venv (3.11)"}, None, ""), (None, None, ""),
])
def test_a_kernel_of_another_language_is_refused_and_stays(spec, info, language):
    """F12: R was run as Python, and the file then said python3."""
    given = {"kernelspec": spec, "language_info": info}
    metadata = {key: value for key, value in given.items() if value}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": []}
    if language:
        with pytest.raises(UserError, match=f"^notebooks/x.ipynb is written for {language}, and"):
            source.check_kernel(notebook, "notebooks/x.ipynb")
    else:
        source.check_kernel(notebook, "notebooks/x.ipynb")
    kept = source.KERNEL if not spec or spec["name"] == "python3" else spec
    assert source.strip(notebook)["metadata"] == {"kernelspec": kept}


BROKEN = '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [%s]}'


@pytest.mark.parametrize("content, problem", [
    ("", "is not a notebook: Expecting"), ("\xff", "is not a notebook: .*codec can't decode"),
    ('{"nbformat": 3, "worksheets": []}', "is not a notebook of format 4"),
    (BROKEN % '{"cell_type": "code", "metadata": {}, "source": [1]}', "is not a notebook of for"),
    ('{\n    "<<<<<<< local\\n",\n', "has the marks of a merge conflict"),
    (None, "does not exist: write it, or"),
])
def test_what_is_no_notebook_is_refused(tmp_path, content, problem):
    path = tmp_path / "notebooks" / "x.ipynb"
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=f"^notebooks/x.ipynb {problem}") as refused:
        source.read(path)
    assert "\n" not in str(refused.value)


def test_jupyterlab_saves_source_only_below_notebooks(executed):
    model = {"type": "notebook", "content": json.loads(nbformat.writes(executed))}
    for path, count in {"reports/x.ipynb": 1, "/notebooks/sub/x.ipynb": 0}.items():
        source.save_source_only(model=model, path=path, contents_manager=None)
        assert len(model["content"]["cells"][1]["outputs"]) == count
