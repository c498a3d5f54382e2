"""A project of another person, taken through all commands; it does not edit nbproof."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from projects import command, commit, dvc, edit_params, nbproof, stages_run

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
    nothing_is_left_to_do(folder)
    one_parameter_runs_what_depends_on_it(folder, base)
    an_exploration_is_adopted(folder)
    a_new_model_runs(folder, base)
    if importlib.util.find_spec("ray"):
        a_sweep_finds_a_best(folder)
    else:
        warnings.warn("ray is not installed: no sweep was tried", stacklevel=2)
    a_person_promotes_and_asks(folder)
    assert "forest: the same outputs" in said(folder, "test")
    another_person_has_all_of_it(folder)


def said(folder: Path, *words: str, code: int = 0) -> str:
    """What `nbproof ...` prints; it must end with `code`."""
    done = nbproof(folder, *words)
    assert done.returncode == code and "Traceback" not in done.stdout, done.stdout
    return done.stdout


def is_clean(folder: Path) -> bool:
    return command(folder, "git", "status", "--porcelain").stdout == ""


def everything_runs(folder: Path) -> None:
    output = said(folder, "run", "--jobs", "2")
    assert stages_run(output) == NOTEBOOKS, output
    assert "boosting is the registered champion now (version 1" in output
    compared = json.loads((folder / "metrics/compare.json").read_text())
    assert compared["champion"] == "boosting" and "rmse" in compared
    commit(folder)


def nothing_is_left_to_do(folder: Path) -> None:
    output = said(folder, "run")
    assert output.startswith("Everything is up to date. The result: reports/index.html\n")
    assert output.endswith(" results are the committed ones, byte for byte.\n")
    assert is_clean(folder)


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
    test, ask = folder / "data/test.csv", folder / "scratch/ask.csv"
    ask.parent.mkdir(exist_ok=True)
    rows = list(csv.DictReader(test.read_text().splitlines()))[:3]
    with ask.open("w", encoding="utf-8", newline="") as file:
        names = [name for name in rows[0] if name != "progression"]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    lines = said(folder, "predict", str(ask)).splitlines()
    [by] = [line for line in lines if line.startswith("Predicted by the champion, version ")]
    assert re.search(r": boosting\b", by)
    lines.remove(by)
    head, *answers = lines
    assert head == "row,prediction" and len(answers) == 3, lines
    assert all(re.fullmatch(r"\d,\d+\.\d+", answer) for answer in answers), answers
    output = said(folder, "predict", "data/test.csv")
    assert "data/test.csv: the champion does not use progression." in output


def another_person_has_all_of_it(folder: Path) -> None:
    assert "are the ones that dvc.lock records" in said(folder, "verify")
    store = str(folder.parent / "store")
    assert dvc(folder, "remote", "add", "-q", "-d", "store", store).returncode == 0
    commit(folder)
    assert " pushed" in said(folder, "push")
    clone = folder.parent / "clone"
    subprocess.run(["git", "clone", "-q", str(folder), str(clone)], check=True)
    said(clone, "pull")
    output = said(clone, "run")
    assert "Everything is up to date." in output and not stages_run(output), output
    assert "are the ones that dvc.lock records" in said(clone, "verify") and is_clean(clone)
