"""MLflow runs: complete where the store answers, and no training lost where it does not."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, commit
from small_training import SCRIPT


@pytest.fixture
def store(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """What the notebooks share, as a git repository of its own: artifacts go to the project's root, and that should not be this one's."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "notebooks" / "digits", folder / "notebooks" / "digits", ignore=shutil.ignore_patterns("__pycache__"))
    commit(folder, "init", "-q")
    return folder


@pytest.fixture
def start(tmp_path, project):
    """A function that starts the script above as a stage would; what still runs at the end is killed."""
    started = []

    def start_one(uri: str, *words: str) -> subprocess.Popen:
        started.append(_start(project, tmp_path, uri, *words))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def _start(project: Path, tmp_path: Path, uri: str, *words: str) -> subprocess.Popen:
    """Its words to the person go to tmp_path/progress."""
    environment = os.environ | {
        "PYTHONPATH": str(project / "notebooks"), "MLFLOW_TRACKING_URI": uri, "PROGRESS_FILE": str(tmp_path / "progress"), "OUTPUT_ROOT": str(tmp_path)
    }
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def runs(uri: str):
    import mlflow

    client = mlflow.MlflowClient(uri)
    return client, client.search_runs([client.get_experiment_by_name("digits").experiment_id], order_by=["start_time"])


def test_a_run_is_complete(tmp_path, store, start, project):
    process = start(store, "patient")
    assert process.communicate() == ("", "") and process.returncode == 0
    client, (run,) = runs(store)
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.1", "epochs": "2"}
    history = client.get_metric_history(run.info.run_id, "validation_accuracy")
    assert [(each.step, each.value) for each in history] == [(1, 0.1), (2, 0.2)]
    assert run.data.metrics["parameters"] == 7850 and run.data.metrics["seconds"] > 0
    assert run.inputs.dataset_inputs[0].dataset.digest == "ab" * 16
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=project, text=True).strip()
    assert run.data.tags["mlflow.source.git.commit"] == head and run.data.tags["notebook"] == "x" and run.data.tags["model_digest"] == "d" * 64
    assert run.info.artifact_uri.startswith((project / "mlartifacts").as_uri())
    folder = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    assert (folder / "figures" / "line.png").stat().st_size > 0
    import yaml

    described = yaml.safe_load((folder / "model" / "MLmodel").read_text())
    assert json.loads(described["signature"]["inputs"])[0]["tensor-spec"]["shape"] == [-1, 1, 28, 28]
    assert (folder / "model" / "data" / "model.pt2").exists() and not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pth", ".pickle")]


def test_an_error_leaves_a_failed_run(store, start):
    process = start(store, "raise", "patient")
    assert "in the middle" in process.communicate()[1]
    assert [run.info.status for run in runs(store)[1]] == ["FAILED"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_killed_run_is_closed_by_the_next(tmp_path, store, start):
    process = start(store, "hang", "patient")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [run.info.status for run in runs(store)[1]] == ["RUNNING"]
    client, (killed,) = runs(store)
    named = {}
    for name, number, began in [("alive", os.getpid(), time.time()), ("its number is another's by now", os.getpid(), 1), ("somebody else's tag", "none", 1)]:
        tags = {"process": f"{socket.gethostname()}:{number}"}
        named[client.create_run(killed.info.experiment_id, start_time=int(began * 1000), tags=tags).info.run_id] = name
    start(store, "short", "patient").communicate()
    found = {named.get(run.info.run_id, "killed" if run.info.run_id == killed.info.run_id else "next"): run.info.status for run in runs(store)[1]}
    assert found == {
        "killed": "KILLED", "alive": "RUNNING", "its number is another's by now": "KILLED", "somebody else's tag": "RUNNING", "next": "FINISHED"
    }


def test_four_at_once_on_a_new_database(tmp_path, store, start):
    processes = [start(store, "short", "patient") for _ in range(4)]
    assert [process.communicate()[1] for process in processes] == [""] * 4
    assert [run.info.status for run in runs(store)[1]] == ["FINISHED"] * 4
    assert '"message"' not in (tmp_path / "progress").read_text()


@pytest.mark.parametrize("kind", ["closed", "silent", "no folder"])
def test_a_store_that_does_not_answer_loses_nothing(tmp_path, start, kind):
    """Whatever the store does, with the patience and the retries that a training has: 30 s at most in all, and one sentence without the password."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if kind == "silent" else 9
        uri = "sqlite:////dev/null/none/mlflow.db" if kind == "no folder" else f"http://someone:hun@ter2@127.0.0.1:{port}"
        process = start(uri, *([] if kind == "silent" else ["short"]))
        out, errors = process.communicate()
        assert (process.returncode, out, errors) == (0, "", "")
        events = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    assert events[-1]["seconds"] < 30 + 5  # 5 s for importing MLflow on a busy machine
    (said,) = [event["message"] for event in events if "message" in event]
    rest = "figure line, tags, the model, " if kind == "silent" else ""
    kept = f"not logged: the run, epoch 1, epoch 2, {rest}the final metrics, the end; kept in unsent/, make sync sends it."
    assert f"{kept} The results on disk are whole." in said
    assert not [word for word in ("someone", "hun", "ter2") if word in said]


def test_a_call_that_was_given_up_stays_unseen(tmp_path, start):
    """Its thread is still at work, and tries again, while the notebook goes on."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = start(f"http://127.0.0.1:{silent.getsockname()[1]}", "hasty", "short")
        assert process.communicate() == ("", "") and process.returncode == 0
        silent.settimeout(0)
        asked = [silent.accept() for _ in range(2)]
    assert "answered too slowly for the 1 s" in (tmp_path / "progress").read_text() and len(asked) == 2


@pytest.mark.parametrize("text, shown", [
    ("https://user:secret@example.org/x", "https://example.org/x"), ("at http://u:p@a and http://v:w@b:8", "at http://a and http://b:8"),
    ("http://u:p@ss@example.org", "http://example.org"), ("https://example.org/@x", "https://example.org/@x"), ("a@b", "a@b"),
])
def test_credentials_are_cut_out(text, shown):
    from digits.progress import without_credentials

    assert without_credentials(text) == shown
