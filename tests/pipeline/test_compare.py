"""Whether the results are those of the commit, and if not, why, stage by stage."""

import json

import pytest
from projects import commit, edit_params

from nbproof.pipeline import compare, dag
from nbproof.runner import determinism


def compared(folder, **files: str) -> list[str]:
    """What a run says at its end, after stages have made `files` (`_` for `/`) and DVC has them."""
    for name, text in files.items():
        (folder / name.replace("_", "/", 1).replace("__", ".")).write_text(text)
    with dag.opened(folder) as repo:
        repo.commit(force=True)
        return compare.compared(dag.read(repo))


ALL = "All 3 results are the committed ones, byte for byte."


def test_all_results_are_the_committed_ones_and_no_yaml_is_read_for_it(small, monkeypatch):
    monkeypatch.setattr(compare, "recorded", None)
    assert compared(small) == [ALL]


def test_only_results_from_the_committed_inputs_are_counted(small):
    edit_params(small, lambda content: content["models"]["m"].update(n=2))
    assert compared(small, models_m__csv="other\n") == [
        "1 of 1 results of unchanged inputs are the committed ones, byte for byte."]
    (small / "raw.txt").write_text("other\n")
    assert compared(small) == []


def test_what_varies_and_what_is_new(small, monkeypatch, capsys):
    monkeypatch.setattr(determinism, "machine", lambda: determinism.NAME)
    compare.announce()
    assert capsys.readouterr().out == ""
    assert compared(small, models_m__csv="other\n")[1:] == [
        "m has other bytes from the same inputs: they vary from run to run, or the commit was made "
        "on a machine that computes otherwise."]
    (small / "dvc.lock").rename(small / "other.lock")
    commit(small)
    assert compared(small) == []


@pytest.mark.parametrize("error, far", [
    (0.505, "all numbers are the committed ones within 0.01"), (0.6, "outside 0.01: error")])
def test_a_machine_that_computes_otherwise_is_compared_by_value(
        small, monkeypatch, capsys, error, far):
    monkeypatch.setattr(determinism, "machine", lambda: "linux-aarch64")
    compare.announce()
    assert capsys.readouterr().out.startswith(
        "This machine rounds like linux-aarch64, not like linux-x86_64-avx2: ")
    assert compared(small, metrics_m__json=json.dumps({"error": error, "note": "x"}))[1:] == [
        "m has other bytes from the same inputs: this machine rounds differently (linux-aarch64); "
        f"{far}."]


def test_without_git(small, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert compared(small) == []
