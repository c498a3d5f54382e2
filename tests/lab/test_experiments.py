"""DVC's own experiments, with notebooks as stages."""

import csv
import sys
import time
from pathlib import Path

import pytest
from projects import command


@pytest.fixture
def call(finished):
    """Run DVC or git in a finished project: in a process of its own, for DVC starts workers."""
    def run(*words: str) -> str:
        program = {"dvc": (sys.executable, "-m", "dvc"), "git": ("git",)}[words[0]]
        done = command(finished, *program, *words[1:])
        assert done.returncode == 0, done.stdout
        return done.stdout

    yield run
    assert run("git", "status", "--porcelain") == "" and "up to date" in run("dvc", "status")


def test_an_experiment_runs_what_changed(call):
    printed = call("dvc", "exp", "run", "-S", "models.near.step=5", "-n", "wider")
    assert "near: every cell ran" in printed and "far: every cell ran" not in printed
    table = call("dvc", "exp", "show", "--csv")
    assert any(row["Experiment"] == "wider" and row["models.near.step"] == "5"
               for row in csv.DictReader(table.splitlines()))
    call("git", "checkout", "--quiet", ".")
    call("dvc", "checkout")


def test_queued_experiments_run_beside_the_workspace_and_one_is_applied(call, finished: Path):
    call("dvc", "exp", "run", "--queue", "-S", "models.near.step=5,6")
    call("dvc", "queue", "start", "--jobs", "1")
    ends = time.monotonic() + 300
    while (status := call("dvc", "queue", "status")).count("Success") < 2:
        assert "Failed" not in status and time.monotonic() < ends, status
        time.sleep(2)
    assert call("git", "status", "--porcelain") == ""
    table = csv.DictReader(call("dvc", "exp", "show", "--csv").splitlines())
    name = next(row["Experiment"] for row in table
                if row["Experiment"] and row["models.near.step"] == "6")
    call("dvc", "exp", "apply", name)
    assert "step: 6" in (finished / "params.yaml").read_text(encoding="utf-8")
    assert "up to date" in call("dvc", "status"), "its results came with it"
    call("git", "checkout", "--quiet", ".")
    call("dvc", "checkout")
