"""Adopted runs: what changes in params.yaml and in the notebook, and that nothing else does."""

import contextlib
import io
import json
import re

import pytest
import typer
from projects import ONE_STAGE, notebook, project

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.workspace import params
from nbproof.workspace.entry import Yaml

TEXT = """\
# values
split: {seed: 1} # of the cases
models: # slowest first
  svm:
    lr: 0.004 # peak
    kind: 'auto'
    layers: [8, 4] # from the input
    floor: null # no floor
    about: a text that is longer than eighty characters, which must not be broken into two lines
  ridge:
    lr: 1e-3 # last

# the comparison
compare: {confidence: 0.95}
"""
SECTIONS = 'P = section("models.svm")\nS = section("split")'
PARAMETERS = """\
lr: float = P.lr  # (0, 1] größe of a step
layers: list[int] = P.layers  # [1, 99] of neurons
floor: float | None = P.floor  # [0, 1] that must be reached
kind: str = P.kind  # {auto, fast, "a#b"}
about: str = P.about
seed: int = S.seed"""
VALUES = {"lr": 0.02, "layers": [16, 8], "floor": None, "kind": "fast", "about": "x", "seed": 7}


@pytest.fixture
def svm(tmp_path, inside):
    """The notebook of a model in a project that is not run, which this process is in."""
    path = tmp_path / "notebooks/svm.ipynb"
    for name in ("svm", "ridge"):
        notebook(path.with_stem(name), SECTIONS, "@" + PARAMETERS)
    inside(project(tmp_path, params_yaml=TEXT, dvc_yaml=ONE_STAGE))
    return path


def explore(values: dict) -> str:
    """Log a finished exploration of svm; return its id."""
    run = tracking.start("svm", values)
    run.finish({"f1": 0.5})
    return run.id


@pytest.mark.parametrize("key, value, old, new", [
    ("models.svm.lr", 1e-5, "0.004 #", "1e-05 #"),
    ("models.svm.kind", "a: b", "'auto'", "'a: b'"),
    ("models.svm.layers", [8], "[8, 4]", "[8]   "),
    ("models.svm.floor", 0.5, "floor: null #", "floor: 0.5  #"),
    ("split.seed", 2, "seed: 1", "seed: 2"),
    ("models.ridge.lr", 1, "lr: 1e-3 # last", "lr: 1    # last"),
    ("models.svm.lr", 0.004, "", ""),
    ("models.new", {"lr": 1}, "  ridge:\n", "  new:\n    lr: 1\n  ridge:\n"),
])
def test_values_change_and_comments_stay(svm, key, value, old, new):
    file = Yaml("params.yaml")
    file.set(key, value)
    same = re.compile(r"floor: (null|) *#")  # ruamel writes null as nothing
    assert same.sub("#", file.text()) == same.sub("#", TEXT.replace(old, new))


def test_the_newest_exploration_is_adopted_into_each_section(svm, tmp_path, capsys):
    original = svm.read_text(encoding="utf-8")
    with pytest.raises(UserError, match="no run to adopt yet"):
        params.adopt("last", True)
    svm.write_text(original.replace("= P.lr", "= 2e-2").replace("= P.layers", "= [16, 8]")
                   .replace("= P.kind", "= 'fast'").replace("= S.seed", "= 3 + 4"))
    explore({**VALUES, "seed": 1, "lr": 0.03})
    with pytest.raises(UserError, match="another lr than its newest finished run: run it"):
        params.adopt("last", True)
    explore(VALUES)
    assert params.adopt("last", True) == 0
    shown = capsys.readouterr().out
    assert "-split: {seed: 1} # of" in shown and "+split: {seed: 7} # of" in shown
    assert svm.read_text(encoding="utf-8") == original and "reload it" in shown
    text = (tmp_path / "params.yaml").read_text()
    assert re.search("lr: 0.02 +# peak", text) and "[16, 8]" in text and "about: x\n" in text
    params.adopt("last", True)
    assert "params.yaml\n" not in capsys.readouterr().out  # no change, no diff
    assert (tmp_path / "params.yaml").read_text() == text


def test_a_text_with_a_hash_an_own_default_and_an_ambiguous_name(svm):
    content = {"cells": [
        {"cell_type": "code", "metadata": {}, "source": SECTIONS.replace("split", "models.ridge")},
        {"cell_type": "code", "metadata": {"tags": ["parameters"]},
         "source": 'kind: str = "a#b"  # of it\nfloor: float | None = -1\nmodel: str = "cnn"'}]}
    assert params._restore(content, "x") == {"kind": "a#b", "floor": "-1"}
    assert content["cells"][1]["source"] == (
        'kind: str = P.kind  # of it\nfloor: float | None = P.floor\nmodel: str = "cnn"')
    content["cells"][1]["source"] = "lr: float = 1"
    with pytest.raises(UserError, match="2 of its sections of params.yaml have lr"):
        params._restore(content, "x")


def test_a_change_needs_a_yes(svm, tmp_path, monkeypatch):
    run = explore(VALUES)
    for answer in ("", "n\n", "y\n"):  # without a terminal there is nothing to read
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        with contextlib.suppress(typer.Abort):
            assert params.adopt(run, False) == (answer != "y\n")
        assert ((tmp_path / "params.yaml").read_text() == TEXT) == (answer != "y\n")


def test_the_best_run_of_a_sweep_and_runs_that_do_not_fit(svm, tmp_path):
    best = explore({"lr": 0.5, "floor": 0.25})  # a sweep need not try all
    (tmp_path / "scratch/sweeps/one").mkdir(parents=True)
    note = {"model": "svm", "run_id": best}
    (tmp_path / "scratch/sweeps/one/best.json").write_text(json.dumps(note))
    assert params.adopt("best", True, "svm") == 0
    assert re.search("floor: 0.25 +# no floor", (tmp_path / "params.yaml").read_text())
    with pytest.raises(UserError, match="no finished sweep of ridge"):
        params.adopt("best", True, "ridge")
    for run, message in (
            (explore({"lr": 3.0}), "svm.lr must be float, in .0, 1.; the run has '3.0'"),
            (explore({"depth": 1}), "has depth, which notebooks/svm.ipynb does not declare"),
            ("nothing", "MLflow has no run 'nothing'")):
        with pytest.raises(UserError, match=message):
            params.adopt(run, True)
