"""Adopted runs: what changes in params.yaml and in the notebook, and that nothing else does."""

import pytest
from projects import ONE_STAGE, notebook, project

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.workspace import params

TEXT = """\
# values
split: {seed: 1} # of the cases
models: # slowest first
  svm:
    lr: 0.004 # peak
    kind: 'auto'
    layers: [8, 4] # from the input
    floor: 1e-3 # to be reached
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
seed: int = S.seed
model: str = "svm"  # its own default"""
VALUES = {"lr": 0.02, "layers": [16, 8], "floor": 0.001, "kind": "fast", "seed": 7}
ADOPTED = (("seed: 1", "seed: 7"), ("0.004 #", "0.02  #"), ("'auto'", "'fast'"),
           ("[8, 4]", "[16, 8]"))


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


def test_an_exploration_is_adopted_into_each_section(svm, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="no run to adopt yet"):
        params.adopt("last", True)
    original = svm.read_text(encoding="utf-8")
    svm.write_text(original.replace("= P.lr", "= 2e-2").replace("= P.layers", "= [16, 8]")
                   .replace("= P.kind", "= 'a#b'").replace("= S.seed", "= 3 + 4"))
    explore(VALUES)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert params.adopt("last", False) == 1
    assert (tmp_path / "params.yaml").read_text() == TEXT
    assert params.adopt("last", True) == 0
    shown = capsys.readouterr().out
    assert "-split: {seed: 1} # of" in shown and "+split: {seed: 7} # of" in shown
    assert svm.read_text(encoding="utf-8") == original
    expected = TEXT
    for old, new in ADOPTED:
        expected = expected.replace(old, new)
    lines = [line.replace(" ", "") for line in (tmp_path / "params.yaml").read_text().splitlines()]
    assert lines == [line.replace(" ", "") for line in expected.splitlines()]


def test_runs_that_do_not_fit_are_refused(svm):
    for run, message in (
            (explore({"lr": 3.0}), "svm.lr must be float, in .0, 1.; the run has '3.0'"),
            (explore({"depth": 1}), "has depth, which notebooks/svm.ipynb does not declare"),
            ("nothing", "MLflow has no run 'nothing'")):
        with pytest.raises(UserError, match=message):
            params.adopt(run, True)
