"""Sweeps on this machine's own Ray and on a cluster: what they find, what they keep, and what they leave behind."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from cluster import cluster
from tiny import CELLS, PARAMETERS, Project

SLOW = PARAMETERS.replace("pause: 0.0", "pause: 0.3")


def until_ended(trials: int, process: subprocess.Popen) -> None:
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith(f"{trials} of"):
            return
    raise AssertionError(f"the sweep ended before {trials} trials had: {''.join(said)}")


def once_each(project: Project, number: int = 6) -> list[dict]:
    """The table of the newest sweep, of which each trial is in MLflow once, and none is left RUNNING."""
    rows, runs = project.table(), project.trials()
    assert len(rows) == number and len({row["trial"] for row in rows}) == number
    status = {"done": "FINISHED", "stopped early": "KILLED", "failed": "FAILED"}
    ended = {run.info.run_id: run.info.status for run in runs if run.data.tags.get("result")}
    assert ended == {row["run_id"]: status[row["state"]] for row in rows}
    assert not [run for run in runs if run.info.status == "RUNNING"]
    return rows


def test_less_is_better_and_the_best_gives_its_number_again(project):
    tracked = project.call("git", "status", "--porcelain")
    said = project.nbproof("sweep", "fit")
    rows = once_each(project)
    done = [row for row in rows if row["state"] == "done"]
    early = [row for row in rows if row["state"] == "stopped early"]
    assert done and len(done) + len(early) == 6 and "6 of 6 trials: 0 running" in said
    best = min(done, key=lambda row: float(row["loss"]))
    assert f"Best: loss {float(best['loss']):.4g} with x" in said and "no result of the parameters" in said
    note = json.loads((project.sweep / "best.json").read_text())
    assert note == {"model": "fit", "run_id": best["run_id"], "trials": 6, "loss": float(best["loss"])}
    assert json.loads(best["sizes"]) in ([1], [1, 2])
    assert project.call("git", "status", "--porcelain") == tracked and not project.processes()
    page = (project.root / "reports/sweep-fit.html").read_text(encoding="utf-8")
    assert "Which values go together?" in page and "6 trials" in page and "failure" not in page
    assert "is finished" in project.nbproof("sweep", "fit")
    parameters = PARAMETERS.replace("x: 1.0", f"x: {best['x']}").replace("[1, 2]", best["sizes"])
    (project.root / "params.yaml").write_text(parameters)
    project.call("dvc", "repro", "-q")
    assert json.loads((project.root / "metrics/fit.json").read_text())["loss"] == float(best["loss"])


def test_a_notebook_that_raises_or_gives_no_number_fails_its_trial_only_and_none_is_stopped_early(project):
    """And a notebook without steps, and one whose committed result is better."""
    cells = [*CELLS[:3], "assert x != 50, 'on purpose'\nloss = float('nan') if x == 60 else loss", CELLS[4]]
    project.write("sweep: {fit: {trials: 12, space: {x: [10, 50, 60]}}}\n", cells)
    project.call("dvc", "repro", "-q")
    said = project.nbproof("sweep", "fit")
    rows = once_each(project, 12)
    assert {(row["x"], row["state"]) for row in rows} == {("10.0", "done"), ("50.0", "failed"), ("60.0", "failed")}
    failures = {run.data.tags["values"]: run.data.tags["failure"] for run in project.trials()}
    assert "on purpose" in failures['{"x": 50.0}'] and "loss is nan" in failures['{"x": 60.0}']
    assert "No trial is stopped early: the progress of notebooks/fit.ipynb does not report loss" in said
    assert "It does not beat the parameters in params.yaml, which reached 3." in said


def test_a_metric_that_no_trial_writes_ends_the_sweep(project):
    project.write("sweep: {fit: {trials: 3, metric: gain, goal: max, space: {x: [10, 50]}}}\n")
    said = project.nbproof("sweep", "fit", code=2)
    assert "metrics/fit.json has no number gain; it has loss, size, tracked." in said and "Traceback" not in said


def test_a_dead_tracking_server_is_said(project):
    said = project.nbproof("sweep", "fit", code=2, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert "MLflow at http://127.0.0.1:9 does not answer, and a sweep keeps its trials there" in said


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_was_ended_goes_on_where_it_was(number, project):
    project.write(parameters=SLOW)
    process = project.start("sweep", "fit")
    until_ended(2, process)
    os.kill(process.pid, number)
    rest = process.communicate(timeout=120)[0]
    project.gone()
    if number == signal.SIGINT:
        assert process.returncode == 130 and "Stopped. What was finished is kept" in rest and "Traceback" not in rest
    ended = {run.info.run_id for run in project.trials() if run.data.tags.get("result")}
    assert "Going on with the sweep of fit" in project.nbproof("sweep", "fit")
    rows = once_each(project)
    assert len(ended) >= 2 and ended <= {row["run_id"] for row in rows}, "what was finished is not done again"
    project.gone()
    assert not list(Path(tempfile.gettempdir()).glob("nbproof-*/*-*-*")), "no file of a dead trial stays"


@pytest.mark.long
def test_a_tracking_server_that_dies_in_the_middle_is_said_and_nothing_lost(project, tmp_path, monkeypatch):
    import servers

    project.write(parameters=SLOW)
    account = {"MLFLOW_TRACKING_USERNAME": servers.USER, "MLFLOW_TRACKING_PASSWORD": servers.PASSWORD}
    for name, value in account.items():
        monkeypatch.setenv(name, value)
    with servers.mlflow_server(tmp_path / "server") as server, servers.proxied(server) as proxy:
        tracked = Project(project.root, MLFLOW_TRACKING_URI=proxy.address, **account)
        process = tracked.start("sweep", "fit")
        until_ended(2, process)
        proxy.trouble = "refuse"
        rest = process.communicate(timeout=200)[0]
        assert process.returncode == 2 and "The sweep stopped, because a trial could not be kept" in rest, rest
        assert servers.PASSWORD not in rest and "Traceback" not in rest
        project.gone()
        proxy.trouble = ""
        assert "Going on with the sweep of fit" in tracked.nbproof("sweep", "fit")
        assert {row["state"] for row in once_each(tracked)} <= {"done", "stopped early"}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, of 60 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=60m", "none", str(place)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a disk that can be full needs the right to mount one: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.long
def test_a_full_disk_is_said_and_the_finished_trials_kept(project, small_disk):
    project.write(parameters=SLOW)
    filler = small_disk / "filler"
    copy = Project(Path(shutil.copytree(project.root, small_disk / "project")))
    process = copy.start("sweep", "fit")
    until_ended(2, process)
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
    rest = process.communicate(timeout=300)[0]
    assert process.returncode == 2 and "What was finished is kept" in rest and "Traceback" not in rest, rest
    copy.gone()
    filler.unlink()
    assert "Going on with the sweep of fit" in copy.nbproof("sweep", "fit")
    assert {row["state"] for row in once_each(copy)} <= {"done", "stopped early"}


@pytest.mark.long
def test_a_sweep_on_two_nodes_survives_the_loss_of_one(project):
    project.write("sweep: {fit: {trials: 10, space: {x: {low: 0.5, high: 90.0}}}}\n", parameters=SLOW)
    with cluster(2) as machines:
        process = project.start("sweep", "fit", **machines.variables)
        until_ended(2, process)
        machines.kill(1)
        said = process.communicate(timeout=500)[0]
    assert process.returncode == 0, said
    rows = once_each(project, 10)
    assert not [row for row in rows if row["state"] == "failed"]
    assert [row for row in rows if row["state"] == "stopped early" and int(row["steps_done"]) < 4]
