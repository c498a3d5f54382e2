"""Sweeps on this machine's own Ray and on a cluster: what they find, what they keep, and what they leave behind."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import servers
from cluster import cluster
from test_cycle import Clone, edit


def client(project: Clone):
    import mlflow

    return mlflow.MlflowClient(project.variables.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project.root / 'mlflow.db'}")


def trials(project: Clone, sweep: str) -> list:
    """The MLflow runs of the trials of `sweep`."""
    known = client(project)
    experiment = known.get_experiment_by_name("sweep").experiment_id
    return [run for run in known.search_runs([experiment], f"tags.sweep = '{sweep}'", max_results=1000) if "trial" in run.data.tags]


def newest(project: Clone, model: str = "linear"):
    return max((project.root / "scratch/sweeps").glob(f"{model}-*"), key=lambda path: path.stat().st_mtime)


def table(project: Clone) -> list[dict]:
    with (newest(project) / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def left() -> set[int]:
    """Nodes and workers of Ray, and kernels of stages, on this machine. Ray's agents look for their node each minute or so, and go then."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        ours = "raylet/raylet" in words or "gcs_server" in words or words.startswith(("ray::Trial", "ray::IDLE")) or "pipeline/stage/kernel.py" in words
        if ours:
            found.add(process.pid)
    return found


def space(project: Clone, text: str) -> None:
    """Another `sweep:` section."""
    path = project.root / "params.yaml"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[: whole.index("\nsweep:")] + "\n" + text, encoding="utf-8")


@pytest.mark.parametrize("section, sentence", [
    ("sweep: {linear: {trials: 3, space: {speed: [1]}}}", "sweep.linear.space.speed is unknown"),
    ("sweep: {linear: {trials: 3, space: {lr: [fast]}}}", "sweep.linear.space.lr must be float in (0, 1], found 'fast'"),
    ("sweep: {linear: {trials: 3, space: {lr: {low: 0, high: 0.1}}}}", "sweep.linear.space.lr.low must be float in (0, 1], found 0"),
    ("sweep: {linear: {trials: 3, space: {lr: {low: 0.2, high: 0.1}}}}", "must go from a lower to a higher number"),
    ("sweep: {linear: {trials: 3, space: {device: {low: 1, high: 2}}}}", "must be a list of choices or a range"),
    ("sweep: {linear: {trials: 0, space: {lr: [0.1]}}}", "sweep.linear.trials must be a positive number, found 0"),
    ("sweep: {linear: {trails: 3, space: {lr: [0.1]}}}", "sweep.linear.trails is unknown"),
    ("sweep: {linear: {trials: 3}}", "sweep.linear.space is missing"),
    ("sweep: {nobody: {trials: 3, space: {lr: [0.1]}}}", "sweep.linear is missing"),
    ("sweep: 7", "there are none"),
])
def test_a_wrong_section_is_refused_before_anything_starts(section, sentence, project):
    before = (project.root / "params.yaml").read_bytes()
    try:
        space(project, section)
        said = project.pipeline("sweep", "linear", code=2)
        assert sentence in said and len(said.strip().splitlines()) == 1
    finally:
        (project.root / "params.yaml").write_bytes(before)


def test_the_best_trial_is_adopted_and_gives_the_same_number(project):
    tracked, before = project.call("git", "status", "--porcelain"), left()
    said = project.pipeline("sweep", "linear")
    rows = table(project)
    assert len(rows) == 6 and {row["state"] for row in rows} <= {"done", "stopped early"}
    early = [row for row in rows if row["state"] == "stopped early"]
    assert early and all(int(row["epochs_done"]) < int(row["epochs_planned"]) for row in early), "some were stopped in the middle"
    assert "6 of 6 trials: 0 running" in said and "% of the epochs saved" in said and "the parameters in params.yaml" in said
    runs = {run.data.tags["trial"]: run for run in trials(project, newest(project).name)}
    assert set(runs) == {row["trial"] for row in rows}
    for row in rows:
        run = runs[row["trial"]]
        assert run.info.status == ("FINISHED" if row["state"] == "done" else "KILLED") and run.info.run_id == row["run_id"]
        assert run.data.tags["mlflow.parentRunId"] and float(run.data.params["lr"]) == float(row["lr"])
        history = client(project).get_metric_history(run.info.run_id, "validation_accuracy")
        assert len(history) >= int(row["epochs_done"]), "its curve"
        assert "notebook" in [each.path for each in client(project).list_artifacts(run.info.run_id)]
    assert project.call("git", "status", "--porcelain") == tracked and left() <= before, "nothing tracked was touched, nothing runs on"
    page = (project.root / "reports/sweep-linear.html").read_text(encoding="utf-8")
    assert "Which values go together?" in page and "6 trials" in page
    assert "is finished" in project.pipeline("sweep", "linear")
    assert "no finished sweep of cnn" in project.pipeline("adopt", "best", "--model", "cnn", code=2)

    best = max((row for row in rows if row["state"] == "done"), key=lambda row: float(row["validation_accuracy"]))
    adopted = project.pipeline("adopt", "best", "--model", "linear", "--yes")
    assert f"+    lr: {float(best['lr'])!r}" in adopted
    ran = project.pipeline("run")
    assert "linear: every cell ran" in ran and "mlp: every cell ran" not in ran
    metrics = json.loads((project.root / "metrics/linear.json").read_text())
    assert metrics["validation_accuracy"] == float(best["validation_accuracy"]), "the stage gives what the trial gave"
    project.call("git", "checkout", "-q", ".")
    project.dvc("checkout", "-q")


def start(project: Clone, **variables: str) -> subprocess.Popen:
    """The sweep as a process of its own group."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "sweep", "linear"], cwd=project.root, env=project.variables | variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def until_ended(trials: int, process: subprocess.Popen) -> None:
    for line in process.stdout:
        if line.startswith(f"{trials} of"):
            return
    raise AssertionError(f"the sweep ended before {trials} trials had")


def gone(before: set[int]) -> None:
    ends = time.monotonic() + 60
    while left() - before:
        assert time.monotonic() < ends, [psutil.Process(each).cmdline()[:3] for each in left() - before if psutil.pid_exists(each)]
        time.sleep(0.5)


@pytest.mark.long
@pytest.mark.parametrize("number, forgotten", [(signal.SIGKILL, False), (signal.SIGKILL, True), (signal.SIGINT, False)])
def test_a_sweep_that_was_ended_goes_on_where_it_was(number, forgotten, project):
    """`forgotten`: what Tune knew was kept last before the trials that ended."""
    whole = (project.root / "params.yaml").read_bytes()
    edit(project.root / "params.yaml", "low: 0.0005", f"low: 0.000{number // 2 - forgotten}")  # a sweep of its own
    before = left()
    try:
        process = start(project)
        until_ended(1, process)
        state = newest(project) / "state.zip"
        kept = state.read_bytes()
        until_ended(4 if forgotten else 2, process)
        os.kill(process.pid, number)
        rest = process.communicate(timeout=120)[0]
        gone(before)
        if forgotten:
            state.write_bytes(kept)
        if number == signal.SIGINT:
            assert process.returncode == 130 and "Stopped. What was finished is kept" in rest
        name = newest(project).name
        ended = {run.info.run_id for run in trials(project, name) if run.info.status == "FINISHED"}
        said = project.pipeline("sweep", "linear")
        assert "Going on with the sweep of linear" in said
        rows = once_each(project)
        assert len(rows) == 6 and ended <= {row["run_id"] for row in rows}, "what was finished is not done again"
        gone(before)
        assert not list(Path(tempfile.gettempdir()).glob("trial-*-*")), "no file of a dead trial stays"
    finally:
        (project.root / "params.yaml").write_bytes(whole)


def test_a_notebook_that_raises_fails_its_trial_only(project):
    notebook, params = project.root / "notebooks/linear.ipynb", project.root / "params.yaml"
    whole, values = notebook.read_bytes(), params.read_bytes()
    try:
        edit(notebook, '"processor = training', '"assert batch < 64, \'too large on purpose\'\\n",\n    "processor = training')
        space(project, "sweep: {linear: {trials: 4, grace: 12, space: {batch: [32, 64]}}}\n")
        said = project.pipeline("sweep", "linear", code=None)
        rows, runs = table(project), trials(project, newest(project).name)
        failed = [row for row in rows if row["state"] == "failed"]
        assert failed and all(row["batch"] == "64" for row in failed) and {row["batch"] for row in rows if row["state"] == "done"} <= {"32"}
        assert len(runs) == 4, "a failed trial is not tried again"
        for run in runs:
            if run.data.params.get("batch", "64") == "64":
                assert run.info.status == "FAILED" and "too large on purpose" in run.data.tags["failure"]
                assert "notebook" in [each.path for each in client(project).list_artifacts(run.info.run_id)]
        assert f"{len(failed)} failed" in said
    finally:
        notebook.write_bytes(whole)
        params.write_bytes(values)


def test_a_dead_tracking_server_is_said(project):
    said = project.pipeline("sweep", "linear", "--force", code=2, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert "MLflow at http://127.0.0.1:9 does not answer, and a sweep keeps its trials there" in said


def once_each(project: Clone) -> list[dict]:
    """The table of the newest sweep, of which every finished trial is in MLflow exactly once and none is left RUNNING."""
    rows, runs = table(project), trials(project, newest(project).name)
    finished = [run.data.tags["trial"] for run in runs if run.info.status == "FINISHED"]
    assert len(finished) == len(set(finished)) == sum(row["state"] == "done" for row in rows)
    assert not [run for run in runs if run.info.status == "RUNNING"]
    return rows


@pytest.mark.long
def test_a_tracking_server_that_dies_in_the_middle_is_said_and_nothing_lost(project, tmp_path, monkeypatch):
    whole, before = (project.root / "params.yaml").read_bytes(), left()
    account = {"MLFLOW_TRACKING_USERNAME": servers.USER, "MLFLOW_TRACKING_PASSWORD": servers.PASSWORD}
    for name, value in account.items():
        monkeypatch.setenv(name, value)
    try:
        edit(project.root / "params.yaml", "low: 0.0005", "low: 0.0002")
        with servers.mlflow_server(tmp_path / "server") as server, servers.proxied(server) as proxy:
            tracked = Clone(project.root, project.variables | account | {"MLFLOW_TRACKING_URI": proxy.address})
            process = start(tracked)
            until_ended(2, process)
            proxy.trouble = "refuse"
            rest = process.communicate(timeout=200)[0]
            assert process.returncode == 2 and "The sweep stopped, because a trial could not be kept" in rest and "Traceback" not in rest, rest
            assert servers.PASSWORD not in rest
            gone(before)
            proxy.trouble = ""
            assert "Going on with the sweep of linear" in tracked.pipeline("sweep", "linear")
            rows = once_each(tracked)
            assert len(rows) == 6 and {row["state"] for row in rows} <= {"done", "stopped early"}
    finally:
        (project.root / "params.yaml").write_bytes(whole)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, of 200 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "none", str(place)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a disk that can be full needs the right to mount one: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.long
def test_a_full_disk_is_said_and_the_finished_trials_kept(project, small_disk):
    before = left()
    copy = Clone(small_disk / "project", project.variables)
    shutil.copytree(project.root, copy.root, ignore=shutil.ignore_patterns("sweeps", ".git", ".dvc"), symlinks=True)
    (copy.root / ".dvc/tmp").mkdir(parents=True)
    filler = small_disk / "filler"
    process = start(copy)
    until_ended(2, process)
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
    rest = process.communicate(timeout=300)[0]
    assert process.returncode == 2 and "What was finished is kept" in rest and "Traceback" not in rest, rest
    gone(before)
    filler.unlink()
    assert "Going on with the sweep of linear" in copy.pipeline("sweep", "linear")
    rows = once_each(copy)
    assert len(rows) == 6 and {row["state"] for row in rows} <= {"done", "stopped early"}


def test_a_state_torn_by_a_full_disk_gives_way_to_the_last_whole_one(tmp_path):
    from types import SimpleNamespace

    from pipeline.sweep.snapshot import Snapshots, known, restored

    assert not restored(tmp_path) and not known(tmp_path), "nothing to go on with"
    whole = json.dumps({"trial_data": [[json.dumps({"trial_id": "a"}), "{}"]]})
    staging, tune = tmp_path / "staging", tmp_path / "tune"
    for place, text in ((staging, whole), (tune, whole[:9])):
        place.mkdir()
        (place / "experiment_state-1.json").write_text(text)
    (staging / "searcher-state-1.pkl").write_text("whole")
    (tune / "searcher-state-2.pkl").write_text("of another moment")
    Snapshots(tmp_path).on_step_end(1, [SimpleNamespace(storage=SimpleNamespace(experiment_driver_staging_path=str(staging)))])
    assert restored(tmp_path) and known(tmp_path) == {"a"}
    assert {path.name: path.read_text() for path in tune.iterdir()} == {"experiment_state-1.json": whole, "searcher-state-1.pkl": "whole"}


@pytest.mark.long
def test_forty_trials_on_two_nodes_survive_the_loss_of_one(project):
    whole = (project.root / "params.yaml").read_bytes()
    try:
        space(project, "sweep: {linear: {trials: 40, grace: 1, space: {lr: {low: 0.0001, high: 0.05, log: true}, batch: [32, 64], epochs: [4, 8]}}}\n")
        with cluster(2) as machines:
            process = start(project, **machines.variables)
            until_ended(2, process)
            machines.kill(1)
            said = process.communicate(timeout=500)[0]
        assert process.returncode == 0, said
        rows = once_each(project)
        assert len(rows) == 40 and not [row for row in rows if row["state"] == "failed"]
        assert sum(row["state"] == "stopped early" for row in rows) >= 5
    finally:
        (project.root / "params.yaml").write_bytes(whole)
