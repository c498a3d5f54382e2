"""Notebooks in git: the set-up in a fresh clone, what is diffed, merged and committed, and the way back."""

import json
import subprocess
import sys

import nbformat
import pytest

from pipeline.stage import source


@pytest.fixture
def clone(tmp_path):
    """A fresh clone with the set-up, made as `python -m pipeline git` makes it."""
    from conftest import copied

    copy = copied(tmp_path)
    copy.pipeline("git")
    return copy


def change(copy, cell: int, text: str, outputs: bool = False) -> None:
    """Write `text` into a cell of mlp.ipynb; with `outputs`, save it as other editors do."""
    path = copy.root / "notebooks/mlp.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[cell].source = text
    if outputs:
        notebook.cells[1].execution_count = 3
        notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="seen\n")]
    path.write_text(source.text(notebook), encoding="utf-8")


def test_a_commit_holds_source_only(clone):
    change(clone, 0, "# New", outputs=True)
    clone.git("commit", "--quiet", "-a", "-m", "with outputs")
    kept = json.loads(clone.git("show", "HEAD:notebooks/mlp.ipynb"))
    assert kept["cells"][0]["source"] == ["# New"] and kept["cells"][1]["outputs"] == [] and kept["cells"][1]["execution_count"] is None
    assert clone.git("status", "--porcelain") == ""
    (clone.root / "notebooks/mlp.ipynb").write_text("<<<<<<< ours\n")
    clone.git("add", "notebooks/mlp.ipynb")
    assert "mlp.ipynb is not a notebook and was not committed" in clone.call("git", "commit", "-m", "broken", code=1)


def test_a_diff_shows_cells(clone):
    change(clone, 0, "# New")
    said = clone.git("diff")
    assert "nbdiff" in said and "/cells/0" in said and "# New" in said


def test_a_merge_gives_a_notebook(clone):
    clone.git("checkout", "--quiet", "-b", "other")
    change(clone, 0, "# Theirs")
    clone.git("commit", "--quiet", "-a", "-m", "theirs")
    clone.git("checkout", "--quiet", "-")
    change(clone, 2, "## Ours")
    clone.git("commit", "--quiet", "-a", "-m", "ours")
    clone.git("merge", "--quiet", "-m", "both", "other")
    merged = nbformat.read(clone.root / "notebooks/mlp.ipynb", as_version=4)
    assert (merged.cells[0].source, merged.cells[2].source) == ("# Theirs", "## Ours")
    clone.git("checkout", "--quiet", "other")
    change(clone, 2, "## Theirs as well")
    clone.git("commit", "--quiet", "-a", "-m", "theirs again")
    clone.git("checkout", "--quiet", "-")
    assert "CONFLICT" in clone.call("git", "merge", "other", code=1)
    nbformat.validate(nbformat.read(clone.root / "notebooks/mlp.ipynb", as_version=4))


def test_what_a_user_has_set_stays(tmp_path):
    from conftest import copied

    copy = copied(tmp_path)
    hook = copy.root / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 0\n")
    copy.git("config", "diff.jupyternotebook.command", "mine")
    assert "your own commit hook stays" in copy.pipeline("git")
    assert hook.read_text() == "#!/bin/sh\nexit 0\n" and copy.git("config", "diff.jupyternotebook.command") == "mine\n"
    hook.unlink()
    copy.git("config", "core.hooksPath", "elsewhere")
    copy.pipeline("git")
    assert not hook.exists() and not (copy.root / "elsewhere").exists()


def test_the_way_back_leaves_the_clone_as_it_was(tmp_path):
    from conftest import copied

    copy = copied(tmp_path)
    before = copy.git("config", "--local", "--list"), sorted((copy.root / ".git/hooks").glob("*"))
    copy.pipeline("git")
    assert copy.git("config", "--local", "--list") != before[0]
    copy.pipeline("git", "--remove")
    assert (copy.git("config", "--local", "--list"), sorted((copy.root / ".git/hooks").glob("*"))) == before


def test_nothing_is_set_up_for_a_machine_that_builds(tmp_path):
    from conftest import copied

    copy = copied(tmp_path)
    copy.variables["CI"] = "true"
    copy.pipeline("git")
    assert "jupyternotebook" not in copy.git("config", "--local", "--list") and not (copy.root / ".git/hooks/pre-commit").exists()


def test_the_hook_does_nothing_without_the_environment(clone):
    hook = clone.root / ".git/hooks/pre-commit"
    hook.write_text(hook.read_text().replace(sys.executable, ".venv/bin/python"))
    change(clone, 0, "# New", outputs=True)
    assert subprocess.run([str(hook)], cwd=clone.root).returncode == 0
