"""Three projects of other people, each taken through all commands; none of them edits nbproof."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from projects import command, commit, dvc, edit_params, nbproof, stages_run
from ruamel.yaml import YAML

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Walk:
    """What is done to a project, and what it should say. Notebooks are called by their names, parameters by keys."""

    name: str
    notebooks: set[str]
    key: str  # the metric that counts
    first: str  # the champion of the first run
    change: tuple[str, object]
    changed: set[str]
    report: list[str]  # patterns that the report on the change holds
    not_in_report: list[str]
    explored: tuple[str, str, str]  # the notebook, a line of its parameters cell, what a person makes of it
    adopted: tuple[str, object]
    copied: tuple[str, str]  # a new model, and the one that it is made from
    rerun: set[str]  # after the exploration was adopted and the model made
    swept: str
    best: Callable  # of several values of the metric
    promoted: str
    test: str  # the file of the test cases
    target: str  # its column that no model is asked with
    answer: str  # the pattern of one answer


WALKS = [
    Walk(
        "diabetes", {"data", "ridge", "boosting", "compare"}, "rmse", "boosting",
        change=("models.ridge.alpha", 10.0), changed={"ridge", "compare"},
        report=[
            r"^\*\*no detectable change\*\* \(p 0\.59\): champion `boosting` 58\.15\d* → `ridge` 57\.11\d*;",
            r"\| `ridge` \| ran \| 57\.11\d* \| -8\.51\d* \|",
            r"\| `boosting` \| unchanged \| 58\.15\d* \| 0 \|",
            r"Predicted and true values of the champion, <code>ridge",
            r"Groups of equal size by `actual`",
            r"The project's own test, on the same 111 cases: `.*paired t test of squared errors: p = ",
        ],
        not_in_report=["Confusion", "### Curves", "worse"],
        explored=("ridge", "alpha: float = P.alpha", "alpha: float = 30.0"), adopted=("models.ridge.alpha", 30.0),
        copied=("forest", "boosting"), rerun={"ridge", "forest", "compare"}, swept="ridge", best=min,
        promoted="boosting", test="data/test.csv", target="progression", answer=r"\d,\d+\.\d+",
    ),
    Walk(
        "features", {"features", "line", "nearest", "compare"}, "r2", "nearest",
        change=("features.degrees", [2, 4]), changed={"features", "line", "nearest", "compare"},
        report=[
            r"^\*\*better\*\*: champion `nearest` 0\.9956 → `line` 0\.9960;",
            r"\| `line` \| ran \| 0\.9960 \| \+0\.17\d+, better \|",
            r"\| `nearest` \| ran \| 0\.9951 \| -0\.000\d, worse \|", r"\| `measure` \| unchanged \|",
            r"`r2` 0\.9960 at `degree` 4, in the base 0\.8220 at `degree` 1",
            r"<code>features\.degrees</code> .*1.* → .*2, 4",
        ],
        not_in_report=["Confusion", "### Answers", "own test", "p = "],
        explored=("features", "degrees: list[int] = P.degrees", "degrees: list[int] = [2, 4, 6]"),
        adopted=("features.degrees", [2, 4, 6]),
        copied=("series", "line"), rerun={"features", "line", "nearest", "series", "compare"},
        swept="nearest", best=max, promoted="nearest", test="data/features/test.csv", target="period",
        answer=r"\d,[23]\.\d+",
    ),
    Walk(
        "text", {"data", "bayes", "descent", "compare"}, "macro_f1", "bayes",
        change=("stepwise.descent.words", 100), changed={"descent", "compare"},
        report=[
            r"^\*\*better\*\*: champion `bayes` 0\.7869 → `descent` 0\.9\d+;",
            r"\| `descent` \| ran \| 0\.9\d+ \| \+0\.3\d+, better \|",
            r"### Curves", r"`macro_f1` 0\.9\d+ at `pass` 4, in the base 0\.5\d+ at `pass` 4", r'x-axis "pass"',
            r"Confusion matrix of the champion, <code>descent", r"`sport` \| `travel` \| `cooking` \| `weather`",
        ],
        not_in_report=["worse", "own test", "p = "],
        explored=("bayes", "words: int | None = P.words", "words: int | None = 40"), adopted=("models.bayes.words", 40),
        copied=("slow", "descent"), rerun={"bayes", "slow", "compare"}, swept="descent", best=max,
        promoted="bayes", test="data/test.csv", target="topic", answer=r"\d,(cooking|sport|travel|weather)",
    ),
]


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.name)
def test_a_project_walks(walk, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(HERE / walk.name, folder)
    commit(folder, "init", "-q", "-b", "main")
    everything_runs(walk, folder)
    base = command(folder, "git", "rev-parse", "HEAD").stdout.strip()
    nothing_is_left_to_do(folder)
    one_parameter_runs_what_depends_on_it(walk, folder)
    the_report_says_what_it_did(walk, folder, base)
    an_exploration_is_adopted(walk, folder)
    a_new_model_runs(walk, folder, base)
    if importlib.util.find_spec("ray"):
        a_sweep_finds_the_best_by_direction(walk, folder)
    else:
        warnings.warn("ray is not installed: no sweep was tried", stacklevel=2)
    a_person_promotes_and_asks(walk, folder)
    the_executed_copies_hold_when_they_run_again(walk, folder)
    another_person_has_all_of_it(folder)


def said(folder: Path, *words: str, code: int = 0) -> str:
    """What `nbproof ...` says, which must end with `code`."""
    done = nbproof(folder, *words)
    assert done.returncode == code and "Traceback" not in done.stdout, done.stdout
    return done.stdout


def parameter(folder: Path, key: str):
    """The value of a key of params.yaml."""
    value = YAML(typ="safe").load((folder / "params.yaml").read_text(encoding="utf-8"))
    for part in key.split("."):
        value = value[part]
    return value


def table(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def everything_runs(walk: Walk, folder: Path) -> None:
    output = said(folder, "run", "--jobs", "2")
    assert stages_run(output) == walk.notebooks, output
    assert f"{walk.first} is the registered champion now (version 1" in output
    assert "measure: 240 swings\n" in output or walk.name != "features"
    compared = json.loads((folder / "metrics/compare.json").read_text())
    assert compared["champion"] == walk.first and walk.key in compared
    commit(folder)


def nothing_is_left_to_do(folder: Path) -> None:
    assert said(folder, "run").startswith("Everything is up to date. The result: reports/index.html\n")
    assert said(folder, "run").endswith(" results are the committed ones, byte for byte.\n")
    assert command(folder, "git", "status", "--porcelain").stdout == ""


def one_parameter_runs_what_depends_on_it(walk: Walk, folder: Path) -> None:
    (*sections, name), value = walk.change[0].split("."), walk.change[1]

    def change(content: dict) -> None:
        for section in sections:
            content = content[section]
        content[name] = value

    edit_params(folder, change)
    output = said(folder, "run", "--jobs", "2")
    assert stages_run(output) == walk.changed and "swings\n" not in output, output
    commit(folder)


def the_report_says_what_it_did(walk: Walk, folder: Path, base: str) -> None:
    report = said(folder, "report", "--base", base)
    assert not [pattern for pattern in walk.report if not re.search(pattern, report)], report
    assert not [words for words in walk.not_in_report if words in report], report


def an_exploration_is_adopted(walk: Walk, folder: Path) -> None:
    """A person changes a line of the parameters cell in JupyterLab, runs the notebook to its end, and saves it."""
    name, line, edited = walk.explored
    path = folder / "notebooks" / f"{name}.ipynb"
    content = nbformat.read(path, as_version=4)
    cell = next(each for each in content.cells if "parameters" in each.metadata.get("tags", []))
    assert line in cell.source
    cell.source = cell.source.replace(line, edited)
    NotebookClient(content, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
    nbformat.write(content, path)

    output = said(folder, "adopt", "last", "--yes")
    key, value = walk.adopted
    assert parameter(folder, key) == value and f"nbproof run trains {name} with them" in output
    changed = command(folder, "git", "status", "--porcelain").stdout.split()
    assert changed == ["M", "params.yaml"], "the notebook is its source again, and no result was touched"


def a_new_model_runs(walk: Walk, folder: Path, base: str) -> None:
    name, like = walk.copied
    assert f"notebooks/{name}.ipynb" in said(folder, "model", name, "--like", like)
    output = said(folder, "run", "--jobs", "2")
    assert stages_run(output) == walk.rerun, output
    same = [json.loads((folder / f"metrics/{each}.json").read_text()) for each in (name, like)]
    assert same[0] == same[1]
    commit(folder)
    assert re.search(rf"\| `{name}` \| ran, new \|", said(folder, "report", "--base", base))


def a_sweep_finds_the_best_by_direction(walk: Walk, folder: Path) -> None:
    output = said(folder, "sweep", walk.swept)
    [file] = folder.glob(f"scratch/sweeps/{walk.swept}-*/trials.csv")
    trials = table(file)
    done = [float(trial[walk.key]) for trial in trials if trial["state"] == "done"]
    assert len(trials) == 3 and {trial["state"] for trial in trials} <= {"done", "stopped early"}, output
    assert len({trial[walk.key] for trial in trials}) > 1, "trials that are alike tell nothing"
    assert f"Best: {walk.key} {walk.best(done):.4g} with " in output
    ours = json.loads((folder / f"metrics/{walk.swept}.json").read_text())[walk.key]
    beats = walk.best(*done, ours) != ours
    assert f"It {'beats' if beats else 'does not beat'} the parameters in params.yaml, which reached" in output
    assert (folder / f"reports/sweep-{walk.swept}.html").exists()
    steps = {int(trial["steps_planned"]) for trial in trials}
    assert steps == ({4} if walk.name == "text" else {0})
    assert ("No trial is stopped early" in output) == (walk.name != "text")


def a_person_promotes_and_asks(walk: Walk, folder: Path) -> None:
    output = said(folder, "promote", walk.promoted)
    assert f"{walk.promoted} is the registered champion" in output

    rows = table(folder / walk.test)[:3]
    ask = folder / "scratch" / "ask.csv"
    ask.parent.mkdir(exist_ok=True)
    with ask.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != walk.target], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    lines = said(folder, "predict", str(ask)).splitlines()
    [by] = [line for line in lines if line.startswith("Predicted by the champion, version ")]  # on stderr
    assert re.search(rf": {walk.promoted}\b", by)
    lines.remove(by)
    head, *answers = lines
    assert head == "row,prediction" and len(answers) == 3, lines
    assert all(re.fullmatch(walk.answer, each) for each in answers), answers
    assert f"{walk.test}: the champion does not use {walk.target}." in said(folder, "predict", walk.test)


def the_executed_copies_hold_when_they_run_again(walk: Walk, folder: Path) -> None:
    copies = [f"reports/{name}.ipynb" for name in sorted(walk.notebooks | {walk.copied[0]})]
    done = command(folder, sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "-p",
                   "no:cacheprovider", "-n", "2", "--dist", "loadfile", *copies,
                   PYTHONPATH=str(folder / "notebooks"), NBPROOF_QUIET="1")
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout
    assert command(folder, "git", "status", "--porcelain").stdout == ""


def another_person_has_all_of_it(folder: Path) -> None:
    assert "are the ones that dvc.lock records" in said(folder, "verify")
    assert dvc(folder, "remote", "add", "-q", "-d", "store", str(folder.parent / "store")).returncode == 0
    commit(folder)
    assert " pushed" in said(folder, "push")

    clone = folder.parent / "clone"
    subprocess.run(["git", "clone", "-q", str(folder), str(clone)], check=True)
    said(clone, "pull")
    output = said(clone, "run")
    assert "Everything is up to date." in output and not stages_run(output), output
    assert "are the ones that dvc.lock records" in said(clone, "verify")
    assert command(clone, "git", "status", "--porcelain").stdout == ""
