"""Git set up for notebooks: commits of source, diffs and merges by cells, and the way back."""

import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from projects import ROOT

from nbproof.notebook.errors import UserError
from nbproof.runner import source
from nbproof.workspace import git

WHO = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER")
       for what in ("NAME", "EMAIL")}
NAME = "notebooks/tree.ipynb"


def call(*words: str, code: int = 0) -> str:
    """What git prints in the current folder, without anybody's own configuration."""
    own = {**WHO, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *words], env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def folder(tmp_path, inside) -> Path:
    """A project with a notebook, committed, which this process is in; git is not set up."""
    (tmp_path / "project.yaml").write_text("name: small\n")
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    (tmp_path / "notebooks").mkdir()
    texts, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [texts("# Tree", id="tree-title"), code("1 + 1", id="tree-sum"),
             texts("The end", id="tree-end")]
    text = source.text(source.strip(nbformat.v4.new_notebook(cells=cells)))
    (tmp_path / NAME).write_text(text, encoding="utf-8")
    inside(tmp_path)
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "first"]):
        call(*words)
    return tmp_path


def change(cell: int, text: str, executed: bool = False) -> None:
    """Write `text` into a cell; `executed` saves the notebook with outputs, as editors do."""
    notebook = nbformat.read(NAME, as_version=4)
    notebook.cells[cell].source = text
    if executed:
        notebook.cells[1].execution_count = 3
        notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="seen\n")]
        notebook.metadata.language_info = {"name": "python", "version": "3.11.7"}
    nbformat.write(notebook, NAME)


def test_a_commit_holds_source_only(folder):
    git.set_up()
    change(0, "# Tree", executed=True)
    assert "seen" in Path(NAME).read_text() and call("diff", "HEAD") == ""  # outputs: no change
    change(0, "# New", executed=True)
    call("commit", "-qam", "x")
    committed = call("show", f"HEAD:{NAME}")
    assert "seen" not in committed and "# New" in committed and "tree-title" in committed
    assert call("status", "--porcelain") == "" and call("diff", "HEAD") == ""


def test_a_diff_shows_cells():
    git.set_up()
    change(0, "# New")
    shown = call("diff")
    assert "nbdiff" in shown and "/cells/0" in shown and "# New" in shown


def test_a_merge_joins_cells_and_a_conflict_is_a_notebook():
    git.set_up()
    call("checkout", "-qb", "other")
    change(0, "# Theirs")
    call("commit", "-qam", "theirs")
    call("checkout", "-q", "-")
    change(2, "Our end")
    call("commit", "-qam", "ours")
    call("merge", "-qm", "both", "other")
    cells = nbformat.read(NAME, as_version=4).cells
    assert (cells[0].source, cells[2].source) == ("# Theirs", "Our end")
    call("checkout", "-q", "other")
    change(2, "Their end")
    call("commit", "-qam", "theirs again")
    call("checkout", "-q", "-")
    assert "CONFLICT" in call("merge", "other", code=1)
    nbformat.validate(nbformat.read(NAME, as_version=4))


def test_the_way_back_leaves_the_clone_as_it_was(capsys):
    call("config", "diff.jupyternotebook.command", "mine")
    call("config", "filter.nbproof.clean", "/gone/python -m nbproof.stage.source")  # of 0.2
    git.set_up()
    assert "diff.jupyternotebook.command is mine already and stays" in capsys.readouterr().out
    assert call("config", "filter.nbproof.clean").endswith("nbproof.runner.source\n")
    git.unset()
    assert call("config", "diff.jupyternotebook.command") == "mine\n"
    assert "nbproof" not in call("config", "--local", "--list")


@pytest.mark.parametrize("command", [git.set_up, git.unset])
def test_a_locked_configuration_is_no_success(folder, capsys, command):
    if command is git.unset:
        git.set_up()
        capsys.readouterr()
    before = (folder / ".git/config").read_bytes()
    (folder / ".git/config.lock").touch()
    with pytest.raises(UserError, match="git config .* failed: .*could not lock config file"):
        command()
    assert capsys.readouterr().out == "" and (folder / ".git/config").read_bytes() == before


def test_where_git_cannot_be_set_up_nothing_is_changed(folder, inside):
    Path(".gitattributes").write_text("*.ipynb text\n")
    with pytest.raises(UserError, match=r"add the line \*.ipynb filter=nbproof"):
        git.set_up()
    (folder / "inner").mkdir()
    (folder / "inner/project.yaml").write_text("name: inner\n")
    before = call("config", "--local", "--list")
    inside(folder / "inner")
    with pytest.raises(UserError, match="a part of the git repository"):
        git.set_up()
    assert call("config", "--local", "--list") == before
    shutil.rmtree(folder / ".git")
    with pytest.raises(UserError, match="not a git repository"):
        git.set_up()


def test_line_endings_are_unix_ones_and_binary_files_stay():
    Path("table.csv").write_bytes(b"a,b\r\n1,2\r\n")
    Path("picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    call("add", "table.csv", "picture.png")
    for name, held in ("table.csv", b"a,b\n1,2\n"), ("picture.png", b"\x89PNG\r\n\x1a\n\0\0"):
        assert subprocess.check_output(["git", "show", f":{name}"]) == held
