"""A project of another person, taken through all commands; it does not edit nbproof."""

import json
import re
import shutil
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from projects import command, commit, edit_params, said, stages_run

HERE = Path(__file__).parent
NOTEBOOKS = {"data", "ridge", "boosting", "compare"}
REPORT = (
    r"`ridge`.*57\.11\d*.*instead of.*`boosting`.*58\.15\d*",
    r"\| `ridge` \| ran \| 57\.11\d* \| .8\.51\d* \|.*better",
    r"\| `boosting` \| unchanged \| 58\.15\d* \| 0 \|",
    r"For 61 of 111 people the error is smaller \(paired t test of squared errors: p = ",
)


def test_a_project_walks(tmp_path):
    folder = shutil.copytree(HERE / "diabetes", tmp_path / "project")
    commit(folder, "init", "-q", "-b", "main")
    everything_runs(folder)
    base = command(folder, "git", "rev-parse", "HEAD").stdout.strip()
    one_parameter_runs_what_depends_on_it(folder, base)
    an_exploration_is_adopted(folder)
    a_new_model_runs(folder, base)
    a_sweep_finds_a_best(folder)
    a_person_promotes_and_asks(folder)
    assert "forest: the same outputs" in said(folder, "test")


def is_clean(folder: Path) -> bool:
    return command(folder, "git", "status", "--porcelain").stdout == ""


def everything_runs(folder: Path) -> None:
    output = said(folder, "run", "--jobs", "2")
    assert stages_run(output) == NOTEBOOKS, output
    assert "boosting is the registered champion now (version 1" in output
    compared = json.loads((folder / "metrics/compare.json").read_text())
    assert compared["champion"] == "boosting" and "rmse" in compared
    commit(folder)


def one_parameter_runs_what_depends_on_it(folder: Path, base: str) -> None:
    edit_params(folder, lambda content: content["models"]["ridge"].update(alpha=10.0))
    output = said(folder, "run", "--jobs", "2")
    assert stages_run(output) == {"ridge", "compare"}, output
    commit(folder)
    report = said(folder, "report", "--base", base)
    assert not [pattern for pattern in REPORT if not re.search(pattern, report)], report
    assert "Confusion" not in report and "worse" not in report, report


def an_exploration_is_adopted(folder: Path) -> None:
    """A person changes a line of the parameters cell in JupyterLab, runs all cells and saves."""
    path = folder / "notebooks" / "ridge.ipynb"
    content = nbformat.read(path, as_version=4)
    [cell] = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
    assert "alpha: float = P.alpha" in cell.source
    cell.source = cell.source.replace("alpha: float = P.alpha", "alpha: float = 30.0")
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(content, timeout=120, resources=where).execute()
    nbformat.write(content, path)
    assert "nbproof run trains ridge with them" in said(folder, "adopt", "last", "--yes")
    assert "alpha: 30.0" in (folder / "params.yaml").read_text()
    changed = command(folder, "git", "status", "--porcelain").stdout.split()
    assert changed == ["M", "params.yaml"], "the notebook is source again, and no result differs"


def a_new_model_runs(folder: Path, base: str) -> None:
    assert "notebooks/forest.ipynb" in said(folder, "model", "forest", "--like", "boosting")
    output = said(folder, "run", "--jobs", "2")
    assert stages_run(output) == {"ridge", "forest", "compare"}, output
    forest, boosting = (json.loads((folder / f"metrics/{name}.json").read_text())
                        for name in ("forest", "boosting"))
    assert forest == boosting
    commit(folder)
    assert re.search(r"\| `forest` \| .*new", said(folder, "report", "--base", base))


def a_sweep_finds_a_best(folder: Path) -> None:
    output = said(folder, "sweep", "ridge")
    assert re.search(r"Best: .*rmse .*with ", output) and is_clean(folder), output
    assert (folder / "reports/sweep-ridge.html").exists()


def a_person_promotes_and_asks(folder: Path) -> None:
    assert "boosting is the registered champion" in said(folder, "promote", "boosting")
    output = said(folder, "predict", "data/test.csv")
    assert "data/test.csv: the champion does not use progression." in output
    assert re.search(r"Predicted by the champion, version \d+: boosting\b", output)
    answers = re.findall(r"(?m)^\d+,\d+\.\d+$", output)
    assert len(answers) == len((folder / "data/test.csv").read_text().splitlines()) - 1, output
