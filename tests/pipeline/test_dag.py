"""What dvc.yaml says, which stages changed, and that each refusal of DVC is one sentence."""

import sys
from pathlib import Path
from unittest import mock

import pytest
from dvc import dvcfile
from projects import edit_params, edit_yaml

from nbproof.notebook.errors import UserError
from nbproof.pipeline import dag

NOTEBOOK = {"cmd": "nbproof stage", "deps": ["notebooks/x.ipynb", "data/table"],
            "params": ["models.m", {"other.yaml": ["a"]}], "outs": ["reports/x.ipynb", "models/x"],
            "metrics": [{"metrics/x.json": {"cache": False}}],
            "plots": [{"metrics/x.csv": {"cache": False, "x": "step", "y": "error"}}]}


def add(folder: Path, **stages: dict) -> None:
    """Add stages to dvc.yaml."""
    edit_yaml(folder / "dvc.yaml", lambda content: content["stages"].update(stages))


def read(folder: Path) -> dict[str, dag.Stage]:
    with dag.opened(folder) as repo:
        return dag.read(repo)


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        read(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_stage(small):
    add(small, last={"cmd": "ls", "deps": ["models"], "outs": ["data/last"]}, x=NOTEBOOK,
        values={"cmd": "uv run nbproof stage a=1e-3 b=", "deps": ["notebooks/x.ipynb"]})
    found = read(small)
    values = found.pop("values")
    assert (values.notebook, values.values) == ("notebooks/x.ipynb", {"a": "1e-3", "b": ""})
    assert list(found) == ["data", "m", "last", "x"]
    assert found["x"] == dag.Stage(
        "x", "x", "notebooks/x.ipynb", ("models.m",), ("notebooks/x.ipynb", "data/table"),
        ("reports/x.ipynb", "models/x", "metrics/x.json", "metrics/x.csv"), frozenset({"data"}))
    assert dag.is_model(found["x"]) and not dag.is_model(found["m"])
    assert found["m"].notebook is None and found["last"].needs == {"m", "x"}
    assert dag.with_downstream({"data", "gone"}, found) == set(found)
    assert dag.with_downstream({"m"}, found) == {"m", "last"}


def runs(*words: str, **more) -> dict:
    return {"x": NOTEBOOK | {"cmd": " ".join(["nbproof stage", *words])} | more}


@pytest.mark.parametrize("stages, words", [
    (runs(deps=[]), "exactly one .ipynb among its deps, found none."),
    (runs(deps=["a.ipynb", "b.ipynb"]), "among its deps, found a.ipynb, b.ipynb."),
    (runs("a=$(id)"), "gives a the value '$(id)'"),
    ({"x": {"cmd": "ls", "outs": ["models/m.csv"]}}, "'models/m.csv' is specified in"),
    ({"x": {"cmd": "ls", "outs": ["models/own.csv"]}}, "models/own.csv.dvc"),
    ({"x": {"cmd": "ls", "outs": ["data/table/3.csv"]}}, "'data/table/3.csv'('x') overlap"),
    ({"x": {"cmd": "ls", "outs": ["models"]}}, "'models'('x') 'models/m.csv'('m') overlap"),
    ({"x": {"cmd": "ls", "deps": ["data/y"], "outs": ["data/x"]},
      "y": {"cmd": "ls", "deps": ["data/x/part"], "outs": ["data/y"]}},
     "need each other's results in a circle (x <- y <- x)"),
])
def test_stages_that_cannot_be(small, stages, words):
    (small / "models" / "own.csv.dvc").write_text(f"outs: [{{path: own.csv, md5: {'a' * 32}}}]\n")
    add(small, **stages)
    assert words in refused(small)


def test_the_value_that_dvc_lock_records(small):
    edit_params(small, lambda content: content["models"]["m"].update(n=2))
    with dag.opened(small) as repo:
        assert dag.recorded_value(repo, "models.m.n") == 1
        assert dag.recorded_value(repo, "models.m") == {"n": 1}
        assert dag.recorded_value(repo, "models.x") is dag.recorded_value(repo, "data.m") is None


def test_what_changed_is_what_dvc_status_lists(small):
    add(small, always={"cmd": "ls"}, frozen={"cmd": "ls", "deps": ["raw.txt"], "frozen": True})
    with dag.opened(small) as repo:
        repo.commit("frozen", force=True)
    for change in (
        lambda: None,
        lambda: (small / "raw.txt").write_text("other\n"),
        lambda: edit_params(small, lambda content: content["models"]["m"].update(n=2)),
        lambda: (small / "metrics" / "m.json").unlink(),
        lambda: add(small, data={"cmd": "other", "deps": ["raw.txt"], "outs": ["data/table"]}),
        lambda: next(small.glob(".dvc/cache/files/md5/*/*.dir")).unlink(),
        lambda: (small / "dvc.lock").unlink(),
    ):
        change()
        with dag.opened(small) as repo:
            found = dag.read(repo)
            assert dag.changed(repo, found) == set(repo.status()), change


def test_digests(small):
    (small / "raw.txt").unlink()
    with dag.opened(small) as repo:
        assert dag.digests(dag.dvc_stage(repo, "data")) == {"raw.txt": None}
        found = dag.digests(dag.dvc_stage(repo, "m"))
        assert found["params.yaml"] == {"models.m": {"n": 1}} and found["data/table"][-4:] == ".dir"


def test_what_must_run_first(small):
    edit_params(small, lambda content: content["models"]["m"].update(n=2))
    with dag.opened(small) as repo:
        dag.check_current(repo, "data")
        dag.check_current(repo, "m", itself=False)
        with pytest.raises(UserError, match="^m must run first, because files or parameters have "):
            dag.check_current(repo, "m")
    (small / "raw.txt").write_text("other\n")
    with dag.opened(small) as repo, pytest.raises(UserError, match="^data must run first"):
        dag.check_current(repo, "m", itself=False)


MERGED = "<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> other\n"


@pytest.mark.parametrize("name, text, sentence", [
    ("dvc.lock", MERGED, "dvc.lock has the marks of a merge conflict: "),
    ("params.yaml", f"x: 1\n{MERGED}", "params.yaml has the marks of a merge conflict: "),
    ("dvc.lock", "stages: 1\n", "git checkout dvc.lock brings the committed one back."),
    ("dvc.yaml", "stages: {a: {cmd: '${no}'}}\n", "DVC cannot read the pipeline: "),
    ("params.yaml", "models: 1\nmodels: 2\n", "params.yaml is not valid YAML: "),
    ("dvc.yaml", "stages:\n  a: {cmd: x}\n  b\n", "dvc.yaml is not valid YAML: "),
    ("dvc.yaml", "stages: {a: {cmd: x, out: [b]}}\n", "dvc.yaml: stages.a.out: extra keys not "),
    ("dvc.yaml", "stages: {a: {cmd: x, out: [b]}}\n", " Did you mean outs?"),
    ("dvc.yaml", "stages: {a: {cmd: 7}}\n", "dvc.yaml: stages.a"),
    ("dvc.yaml", None, "dvc.yaml is missing: git"),
])
def test_what_dvc_cannot_read(small, name, text, sentence):
    (small / name).write_text(text) if text else (small / name).unlink()
    assert sentence in refused(small)


def test_what_dvc_cannot_work_with(small, monkeypatch):
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0)
    with (dag.opened(small) as other, other.lock, pytest.raises(UserError, match="^Another DVC "),
          dag.opened(small) as repo):
        repo.status()
    (small / ".dvc" / "tmp" / "rwlock").write_text('{"write": {"a')
    with pytest.raises(UserError, match=r"nbproof run removes it\.$"), dag.opened(small) as repo:
        repo.commit(force=True)
    with pytest.raises(UserError, match="^A file cannot be .*: make room"), dag.opened(small):
        raise OSError(28, "No space left on device")
    (small / ".git").rename(small / "git")
    assert refused(small).startswith("DVC needs a git repository, and this folder is in none")


def test_networkx_is_not_imported_and_dvc_lock_is_parsed_once(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)  # importing it is an error
    load = mock.Mock(side_effect=dvcfile.Lockfile._load)
    monkeypatch.setattr(dvcfile.Lockfile, "_load", lambda *words, **more: load(*words, **more))
    with dag.opened(small) as repo:
        assert dag.changed(repo, dag.read(repo)) == set()
        dag.check_current(repo, "m")
    assert load.call_count == 1
