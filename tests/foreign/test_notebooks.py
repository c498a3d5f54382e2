"""Two sets of notebooks as people have them, made projects by `init` and `add` alone.

No line of a notebook is changed. What a person types is counted and printed.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from projects import command, commit, dvc, edit_params, said, stages_run

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Set:
    """What is done to a set of notebooks, and what should come of it; paths are of the project."""

    name: str
    add: tuple[str, ...]  # the notebooks in the order in which they are added
    raw: str
    outs: set[str]  # that nbproof finds, besides the executed notebooks
    lines: tuple[str, ...]  # of dvc.yaml
    change: tuple[str, str, object]  # section, parameter, value
    changed: set[str]  # the stages that run then
    report: str
    table: str  # what the first run prints


SETS = [
    Set("churn", ("notebooks/churn.ipynb",), "data/telecom.csv",
        {"notebooks/scores.json", "notebooks/roc.png", "notebooks/model_C=1.0.joblib"},
        ("      - data/telecom.csv", "      - notebooks/scores.json:", "      - churn"),
        ("churn", "test_size", 0.3), {"churn"}, "`auc`", r"churn +0\.\d{4} +0\.\d{4}"),
    Set("energy", ("1 clean.ipynb", "2 model.ipynb"), "meter.csv",
        {"train.csv", "test.csv", "result.json", "learning.csv"},
        ("      - meter.csv", "      - helpers.py", "      - train.csv", "          x: days",
         "      - 2_model"),
        ("2_model", "alpha", 100.0), {"2 model"}, "`mae`", r"2 model +\d+\.\d+ +0\.\d{4}"),
]


@pytest.mark.parametrize("own", SETS, ids=lambda own: own.name)
def test_notebooks_become_a_project_as_they_are(own, tmp_path, capsys):
    folder = shutil.copytree(HERE / own.name, tmp_path / "mine")
    raw = folder / own.raw
    raw.write_bytes(raw.read_bytes().replace(b"\n", b"\r\n"))  # as a program of Windows wrote it
    (folder / ".gitattributes").write_text("* text=auto\n")
    commit(folder, "init", "-q", "-b", "main")
    notebooks = {path: path.read_bytes() for path in folder.rglob("*.ipynb")}
    typed = [["init"], *(["add", path, "--yes"] for path in own.add), ["run"]]
    output = [said(folder, *words) for words in typed][-1]
    with capsys.disabled():
        print(f"\n{own.name}: {len(typed)} commands, no line of a file:",
              *(f"nbproof {' '.join(words)}" for words in typed), sep="\n  ")
    assert len(typed) <= 4 and stages_run(output) == {Path(path).stem for path in own.add}
    assert {path: path.read_bytes() for path in notebooks} == notebooks
    assert re.search(own.table, output), "the numbers of its metrics"
    the_pipeline_has_what_they_read_and_write(own, folder)
    nothing_is_left_to_do(folder)
    elsewhere_are_the_same_bytes(own, folder)
    one_parameter_runs_what_depends_on_it(own, folder)


def the_pipeline_has_what_they_read_and_write(own: Set, folder: Path) -> None:
    text = (folder / "dvc.yaml").read_text()
    assert [line for line in own.lines if line not in text.splitlines()] == [], text
    assert all((folder / path).exists() and path in text for path in own.outs), text
    assert f"{own.raw} -text" in (folder / ".gitattributes").read_text()
    before = (folder / "dvc.yaml").read_bytes()
    said(folder, "add", own.add[-1], "--yes")  # once more: it is up to date
    assert (folder / "dvc.yaml").read_bytes() == before
    assert said(folder, "run").count("every cell ran") == 0
    commit(folder)


def nothing_is_left_to_do(folder: Path) -> None:
    output = said(folder, "run")
    assert "Everything is up to date." in output and "are the committed ones" in output
    assert command(folder, "git", "status", "--porcelain").stdout == ""
    assert said(folder, "deps") == "dvc.yaml lists all that the stages read and write.\n"
    assert "the same outputs" in said(folder, "test")
    assert "are the ones that dvc.lock records" in said(folder, "verify")


def elsewhere_are_the_same_bytes(own: Set, folder: Path) -> None:
    clone = folder.parent / "somewhere else"
    subprocess.run(["git", "clone", "-q", str(folder), str(clone)], check=True)
    output = said(clone, "run")  # it has no cache: all is computed again
    assert stages_run(output) == {Path(path).stem for path in own.add}, output
    assert "are the committed ones, byte for byte" in output
    for path in own.outs:
        assert (clone / path).read_bytes() == (folder / path).read_bytes()
    assert dvc(clone, "status").stdout == "Data and pipelines are up to date.\n"


def one_parameter_runs_what_depends_on_it(own: Set, folder: Path) -> None:
    base = command(folder, "git", "rev-parse", "HEAD").stdout.strip()
    section, name, value = own.change
    edit_params(folder, lambda content: content[section].update({name: value}))
    assert stages_run(said(folder, "run")) == own.changed
    commit(folder)
    report = said(folder, "report", "--base", base)
    assert f"{section}.{name}" in report and own.report in report, report
