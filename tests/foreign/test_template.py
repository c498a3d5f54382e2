"""The project that `nbproof new` makes, taken through all commands as a person would."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from projects import command, commit, copy_of_project, edit_params, said, stages_run

from nbproof.runner import RESULTS
from nbproof.workspace import new

REPORT = (
    r"Same champion `logistic`, 0\.97\d*\. \*\*`tree` is worse\*\*: 0\.91\d* → 0\.73\d*, 8 more",
    r"\| `tree` \| ran \| 0\.91\d* \| 0\.73\d* \| .0\.17\d* \|.*worse",
    r"\| `logistic` \| unchanged \| 0\.97\d* \| 0\.97\d* \| 0 \|",
    r"Of 45 rows, 1 are newly right and 9 newly wrong \(McNemar's exact test: p = 0\.021\)",
)


@pytest.fixture
def wines(tmp_path, monkeypatch) -> Path:
    """A project of the template; to lock its packages takes a minute and a registry."""
    def lock(folder: Path) -> None:
        (folder / "requirements/results.txt").write_text(f"# nbproof results: {RESULTS}\n")

    monkeypatch.setattr(new, "HOME", copy_of_project(tmp_path / "nbproof"))
    monkeypatch.setattr(new, "lock", lock)
    folder = tmp_path / "wines"
    assert new.new(folder) == 0
    if command(folder, "git", "rev-parse", "HEAD").returncode:
        commit(folder)  # this machine's git has no identity of its own
    return folder


def test_a_project_of_the_template_walks(wines):
    output = said(wines, "run", "--jobs", "2")
    assert stages_run(output) == {"data", "tree", "logistic", "compare"}, output
    assert "logistic is the registered champion now (version 1" in output
    commit(wines)
    base = command(wines, "git", "rev-parse", "HEAD").stdout.strip()
    one_parameter_runs_what_depends_on_it(wines, base)
    an_exploration_is_adopted(wines)
    a_new_model_runs(wines, base)
    a_sweep_finds_a_best(wines)
    a_person_promotes_and_asks(wines)
    assert "forest: the same outputs" in said(wines, "test")


def one_parameter_runs_what_depends_on_it(folder: Path, base: str) -> None:
    edit_params(folder, lambda content: content["models"]["tree"].update(depth=1))
    output = said(folder, "run", "--jobs", "2")
    assert stages_run(output) == {"tree", "compare"}, output
    commit(folder)
    report = said(folder, "report", "--base", base)
    assert not [pattern for pattern in REPORT if not re.search(pattern, report)], report


def an_exploration_is_adopted(folder: Path) -> None:
    """A person changes a line of the parameters cell in JupyterLab, runs all cells and saves."""
    path = folder / "notebooks" / "tree.ipynb"
    content = nbformat.read(path, as_version=4)
    [cell] = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
    assert "depth: int = P.depth" in cell.source
    cell.source = cell.source.replace("depth: int = P.depth", "depth: int = 3")
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(content, timeout=120, resources=where).execute()
    nbformat.write(content, path)
    assert "nbproof run trains tree with them" in said(folder, "adopt", "last", "--yes")
    assert "depth: 3" in (folder / "params.yaml").read_text()
    changed = command(folder, "git", "status", "--porcelain").stdout.split()
    assert changed == ["M", "params.yaml"], "the notebook is source again, and no result differs"


def a_new_model_runs(folder: Path, base: str) -> None:
    assert "notebooks/forest.ipynb" in said(folder, "model", "forest", "--like", "logistic")
    output = said(folder, "run", "--jobs", "2")
    assert stages_run(output) == {"tree", "forest", "compare"}, output
    forest, logistic = (json.loads((folder / f"metrics/{name}.json").read_text())
                        for name in ("forest", "logistic"))
    assert forest == logistic
    commit(folder)
    assert re.search(r"\| `forest` \| .*new", said(folder, "report", "--base", base))


def a_sweep_finds_a_best(folder: Path) -> None:
    output = said(folder, "sweep", "tree")
    assert re.search(r"Best: accuracy .* with depth", output), output
    assert command(folder, "git", "status", "--porcelain").stdout == ""
    assert (folder / "reports/sweep-tree.html").exists()


def a_person_promotes_and_asks(folder: Path) -> None:
    assert "logistic is the registered champion" in said(folder, "promote", "logistic")
    output = said(folder, "predict", "data/test.csv")
    assert re.search(r"Predicted by the champion, version \d+: logistic\b", output)
    answers = re.findall(r"(?m)^data/test.csv,\d+,[A-Z]\w+$", output)
    assert len(answers) == len((folder / "data/test.csv").read_text().splitlines()) - 1, output
