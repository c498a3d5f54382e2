"""Git set up for notebooks: commits of source, diffs and merges by cells."""

import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from projects import ROOT, notebook

from nbproof.notebook.errors import UserError
from nbproof.workspace import git

NAME = "notebooks/tree.ipynb"


def call(*words: str) -> str:
    """What git prints in the current folder, without anybody's own configuration."""
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *words],
                          env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def folder(tmp_path, inside) -> Path:
    """A project with a notebook, committed, which this process is in; git is not set up."""
    (tmp_path / "project.yaml").write_text("name: small\n")
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    notebook(tmp_path / NAME, "#!# Tree", "1 + 1", "#!The end")
    inside(tmp_path)
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "first"]):
        call(*words)
    return tmp_path


def change(cell: int, text: str) -> None:
    """Write `text` into a cell, and save the notebook with outputs, as editors do."""
    content = nbformat.read(NAME, as_version=4)
    content.cells[cell].source = text
    content.cells[1].execution_count = 3
    content.cells[1].outputs = [nbformat.v4.new_output("stream", text="seen\n")]
    content.metadata.language_info = {"name": "python", "version": "3.11.7"}
    nbformat.write(content, NAME)


def test_diffs_and_merges_are_by_cells_and_a_commit_holds_source_only():
    git.set_up()
    change(0, "# Tree")
    assert "seen" in Path(NAME).read_text() and call("diff", "HEAD") == ""  # outputs: no change
    call("checkout", "-qb", "other")
    change(0, "# Theirs")
    shown = call("diff")
    assert "nbdiff" in shown and "/cells/0" in shown and "# Theirs" in shown
    call("commit", "-qam", "theirs")
    committed = call("show", f"HEAD:{NAME}")
    assert "seen" not in committed and "# Theirs" in committed and "tree-1" in committed
    assert call("status", "--porcelain") == "" and call("diff", "HEAD") == ""
    call("checkout", "-q", "-")
    change(2, "Our end")
    call("commit", "-qam", "ours")
    call("merge", "-qm", "both", "other")
    cells = nbformat.read(NAME, as_version=4).cells
    assert (cells[0].source, cells[2].source) == ("# Theirs", "Our end")


def test_where_git_refuses_that_is_no_success(folder, capsys):
    before = (folder / ".git/config").read_bytes()
    (folder / ".git/config.lock").touch()
    with pytest.raises(UserError, match="git config .* failed: .*could not lock config file"):
        git.set_up()
    Path(".gitattributes").write_text("*.ipynb text\n")
    with pytest.raises(UserError, match=r"add \*.ipynb filter=nbproof"):
        git.set_up()
    assert capsys.readouterr().out == "" and (folder / ".git/config").read_bytes() == before
