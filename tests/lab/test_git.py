"""Notebooks in git, once it was asked for: commits of source, diffs and merges by cells, and the way back."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

from nbproof.workspace import git
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.runner import source

REPOSITORY = Path(__file__).resolve().parents[2]
WHO = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
NAME = "notebooks/tree.ipynb"


def call(*words: str, code: int = 0) -> str:
    """What git says in the current folder, without anybody's own configuration."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    variables |= {**WHO, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *words], env=variables, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with a notebook, committed, which this process is in; git is not set up."""
    monkeypatch.chdir(tmp_path)
    root.cache_clear()
    Path("project.yaml").write_text("name: small\n")
    shutil.copy(REPOSITORY / ".gitattributes", tmp_path)
    Path("notebooks").mkdir()
    texts, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [texts("# Tree", id="tree-title"), code("1 + 1", id="tree-sum"), texts("The end", id="tree-end")]
    Path(NAME).write_text(source.text(source.strip(nbformat.v4.new_notebook(cells=cells))), encoding="utf-8")
    call("init", "--quiet")
    call("add", "--all")
    call("commit", "--quiet", "-m", "first")
    yield tmp_path
    root.cache_clear()


def change(cell: int, text: str, executed: bool = False) -> None:
    """Write `text` into a cell; `executed` saves the notebook with outputs, as other editors do."""
    notebook = nbformat.read(NAME, as_version=4)
    notebook.cells[cell].source = text
    if executed:
        notebook.cells[1].execution_count = 3
        notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="seen\n")]
        notebook.metadata.language_info = {"name": "python", "version": "3.11.7"}
    nbformat.write(notebook, NAME)


@pytest.mark.parametrize("how", [["commit", "-m", "x", NAME], ["commit", "-a", "-m", "x"]], ids=["file", "all"])
def test_a_commit_holds_source_only_and_leaves_everything_clean(folder, how):
    git.set_up()
    change(0, "# New", executed=True)
    call(*how)
    kept = call("show", f"HEAD:{NAME}")
    assert "seen" not in kept and "# New" in kept and "tree-title" in kept, "ids stay"
    assert call("status", "--porcelain") == "" and call("diff", "HEAD") == ""
    assert source.strip_file(Path(NAME))  # as a run does
    git.refresh(folder / NAME)
    assert Path(NAME).read_text(encoding="utf-8") == kept and call("status", "--porcelain") == ""


def test_an_executed_notebook_without_another_change_is_no_change(folder):
    git.set_up()
    change(0, "# Tree", executed=True)
    assert "seen" in Path(NAME).read_text() and call("diff", "HEAD") == ""


def test_a_diff_shows_cells(folder):
    git.set_up()
    change(0, "# New")
    said = call("diff")
    assert "nbdiff" in said and "/cells/0" in said and "# New" in said


def test_a_merge_gives_a_notebook(folder):
    git.set_up()
    call("checkout", "--quiet", "-b", "other")
    change(0, "# Theirs")
    call("commit", "--quiet", "-a", "-m", "theirs")
    call("checkout", "--quiet", "-")
    change(2, "Our end", executed=True)
    call("commit", "--quiet", "-a", "-m", "ours")
    source.strip_file(Path(NAME))
    git.refresh(folder / NAME)
    call("merge", "--quiet", "-m", "both", "other")
    assert [cell["source"] for cell in json.loads(Path(NAME).read_text())["cells"]][::2] == [["# Theirs"], ["Our end"]]
    call("checkout", "--quiet", "other")
    change(2, "Their end")
    call("commit", "--quiet", "-a", "-m", "theirs again")
    call("checkout", "--quiet", "-")
    assert "CONFLICT" in call("merge", "other", code=1)
    nbformat.validate(nbformat.read(NAME, as_version=4))


def test_what_a_user_has_set_stays(folder, capsys):
    call("config", "diff.jupyternotebook.command", "mine")
    git.set_up()
    assert "diff.jupyternotebook.command is mine already and stays" in capsys.readouterr().out
    git.unset()
    assert call("config", "diff.jupyternotebook.command") == "mine\n"


def test_the_way_back_leaves_the_clone_as_it_was(folder, capsys):
    before = call("config", "--local", "--list")
    git.set_up()
    assert "nbproof git --remove undoes it" in capsys.readouterr().out
    assert call("config", "--local", "--list") != before
    git.unset()
    assert call("config", "--local", "--list") == before and not list(Path(".git/hooks").glob("pre-commit"))


def test_outside_git_and_inside_another_repository_nothing_is_changed(folder):
    shutil.rmtree(".git")
    with pytest.raises(UserError, match="in no git repository"):
        git.set_up()
    call("-C", str(folder), "init", "--quiet")
    (folder / "inner").mkdir()
    (folder / "inner" / "project.yaml").write_text("name: inner\n")
    os.chdir("inner")
    root.cache_clear()
    before = call("config", "--local", "--list")
    with pytest.raises(UserError, match="a part of the git repository"):
        git.set_up()
    assert call("config", "--local", "--list") == before


def test_a_project_without_the_attributes_is_told_the_line(folder):
    Path(".gitattributes").write_text("*.ipynb text\n")
    with pytest.raises(UserError, match=r"add the line \*.ipynb filter=nbproof"):
        git.set_up()


def test_line_endings_are_unix_ones_and_binary_files_stay(folder):
    Path("table.csv").write_bytes(b"a,b\r\n1,2\r\n")
    Path("picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    call("add", "table.csv", "picture.png")
    kept = [subprocess.check_output(["git", "show", f":{name}"]) for name in ("table.csv", "picture.png")]
    assert kept == [b"a,b\n1,2\n", b"\x89PNG\r\n\x1a\n\0\0"]
