"""Both chapters as a whole, on the digits that need no network."""

import json
import socket
import sys
from pathlib import Path

import pytest
from projects import (
    ROOT,
    command,
    commit,
    copy_of_project,
    edit_params,
    nbproof_process,
    results,
    stages_run,
)

from mnist.sources import SOURCES
from nbproof.notebook.files import from_yaml
from nbproof.pipeline import dag

CHAPTER = {"data", "cnn", "mlp", "linear", "compare"}
ALL = CHAPTER | {"export@cnn", "export@mlp", "export@linear", "know"}
FEW_STEPS = {"cnn": {"epochs": 6, "width": 16, "top": 32}, "mlp": {"epochs": 18},
             "linear": {"epochs": 12}}
NOWHERE = {"MNIST_MIRRORS": "http://127.0.0.1:9/mnist/"}


@pytest.fixture(autouse=True)
def project():
    """No project around this process: the commands run in copies of the tree."""


def copy(folder: Path, source: str) -> Path:
    """A committed copy of the tree, few epochs."""
    def change(content):
        content["data"]["source"] = source
        content["know"]["images"] = 200
        for name, values in FEW_STEPS.items():
            content["models"][name].update(values)
            if sys.platform == "darwin":  # hosted runners report an mps that has no memory to give
                content["models"][name]["device"] = "cpu"

    copy_of_project(folder)
    edit_params(folder, change)
    commit(folder)
    return folder


@pytest.fixture(scope="session")
def example(made_once) -> Path:
    """A copy that has run, two stages at a time; tests leave it as it is."""
    def make(folder: Path) -> None:
        done = nbproof_process(copy(folder, "digits"), "run", "--jobs", "2", "--no-register")
        assert done.returncode == 0 and stages_run(done.stdout) == ALL, done.stdout
        commit(folder)

    return made_once("example", make)


def test_dead_mirrors_end_in_the_same_results(example, tmp_path):
    """MNIST where no mirror responds: in another folder, one stage at a time, the same bytes."""
    other = copy(tmp_path / "elsewhere" / "copy", "mnist")
    refused = nbproof_process(other, "run", "--no-fallback", **NOWHERE)
    assert refused.returncode == 1 and "Failed: data. Not run: " in refused.stdout, refused.stdout
    assert NOWHERE["MNIST_MIRRORS"] in refused.stdout and "MNIST_MIRRORS" in refused.stdout

    done = nbproof_process(other, "run", "--jobs", "1", "--no-register", **NOWHERE)
    assert done.returncode == 0 and stages_run(done.stdout) == ALL, done.stdout
    assert "Going on with data.source: digits instead of mnist." in done.stdout
    params = (other / "params.yaml").read_text(encoding="utf-8")
    assert from_yaml(params)["data"]["source"] == "digits"
    assert params.count("#") == (ROOT / "params.yaml").read_text(encoding="utf-8").count("#")
    ours, theirs = results(example), results(other)
    assert len(ours) >= 30
    assert [name for name in ours | theirs if ours.get(name) != theirs.get(name)] == []
    words = [b"start_time", b"/site-packages/", socket.gethostname().encode() + b"."]
    assert [name for name in ours for word in words if word in ours[name]] == []
    assert command(example, "git", "status", "--short").stdout == ""
    done = nbproof_process(example, "nbval", "-k", "data or compare")
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-5000:]


def test_the_second_chapter_does_not_retrain_the_first():
    with dag.opened(ROOT) as repo:
        stages = dag.read(repo)
    for stage in stages.values():
        production = any("production" in path for path in stage.deps)
        assert production != (stage.short in CHAPTER), stage.name
        if stage.short in CHAPTER:
            assert {stages[name].short for name in stage.needs} <= CHAPTER, stage.name


def test_the_committed_results_are_good():
    lock = from_yaml((ROOT / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    source = SOURCES[lock["data"]["params"]["params.yaml"]["data"]["source"]]
    for name, floor in source.floors.items():
        metrics = json.loads((ROOT / "metrics" / f"{name}.json").read_text(encoding="utf-8"))
        assert metrics["validation_accuracy"] >= floor, name
