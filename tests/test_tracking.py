"""MLflow runs: complete where the store answers, and no training lost where it does not."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPT = """
import os, sys, time, torch
from torch import nn
from digits import data, tracking
from digits.progress import say
images = torch.randn(20, 1, 28, 28)
digits = data.Digits("digits", "ab" * 32, data.Split(images, torch.arange(20) % 10), data.Split(images, torch.arange(20) % 10))
net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
started = time.monotonic()
run = tracking.start("x", {"lr": 0.1, "epochs": 2}, digits)
for epoch in (1, 2):
    run.log(epoch, {"validation_accuracy": epoch / 10})
if "raise" in sys.argv: raise ValueError("in the middle")
if "hang" in sys.argv: print("ready", flush=True); time.sleep(100)
import matplotlib; matplotlib.use("agg")
import matplotlib.pyplot as plt
run.figure("line", plt.figure())
run.tag({"model_digest": "d" * 64})
run.model(net, digits)
run.finish({"validation_accuracy": 0.2, "parameters": 7850, "data": "digits"})
say(seconds=time.monotonic() - started)
"""


@pytest.fixture
def store(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def start(tmp_path: Path, uri: str, *words: str) -> subprocess.Popen:
    """The script above as a stage would run it; its words to the person go to tmp_path/progress."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "notebooks"), "MLFLOW_TRACKING_URI": uri, "PROGRESS_FILE": str(tmp_path / "progress"), "OUTPUT_ROOT": str(tmp_path)
    }
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def runs(uri: str):
    import mlflow

    client = mlflow.MlflowClient(uri)
    return client, client.search_runs([client.get_experiment_by_name("digits").experiment_id], order_by=["start_time"])


def test_a_run_is_complete(tmp_path, store):
    process = start(tmp_path, store)
    assert process.communicate() == ("", "") and process.returncode == 0
    client, (run,) = runs(store)
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.1", "epochs": "2"}
    history = client.get_metric_history(run.info.run_id, "validation_accuracy")
    assert [(each.step, each.value) for each in history] == [(1, 0.1), (2, 0.2)]
    assert run.data.metrics["parameters"] == 7850 and run.data.metrics["seconds"] > 0
    assert run.inputs.dataset_inputs[0].dataset.digest == "ab" * 16
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    assert run.data.tags["mlflow.source.git.commit"] == commit and run.data.tags["notebook"] == "x" and run.data.tags["model_digest"] == "d" * 64
    folder = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    assert (folder / "figures" / "line.png").stat().st_size > 0
    import yaml

    described = yaml.safe_load((folder / "model" / "MLmodel").read_text())
    assert json.loads(described["signature"]["inputs"])[0]["tensor-spec"]["shape"] == [-1, 1, 28, 28]
    assert (folder / "model" / "data" / "model.pt2").exists() and not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pth", ".pickle")]


def test_an_error_leaves_a_failed_run(tmp_path, store):
    process = start(tmp_path, store, "raise")
    assert "in the middle" in process.communicate()[1]
    assert [run.info.status for run in runs(store)[1]] == ["FAILED"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_killed_run_is_closed_by_the_next(tmp_path, store):
    process = start(tmp_path, store, "hang")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [run.info.status for run in runs(store)[1]] == ["RUNNING"]
    start(tmp_path, store).communicate()
    assert [run.info.status for run in runs(store)[1]] == ["KILLED", "FINISHED"]


def test_four_at_once_on_a_new_database(tmp_path, store):
    processes = [start(tmp_path, store) for _ in range(4)]
    assert [process.communicate()[1] for process in processes] == [""] * 4
    assert [run.info.status for run in runs(store)[1]] == ["FINISHED"] * 4
    assert '"message"' not in (tmp_path / "progress").read_text()


@pytest.mark.parametrize("kind", ["closed", "silent", "no folder"])
def test_a_store_that_does_not_answer_loses_nothing(tmp_path, kind):
    """Whatever the store does: 30 s at most in all, and one sentence without the password."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if kind == "silent" else 9
        uri = "sqlite:////dev/null/none/mlflow.db" if kind == "no folder" else f"http://someone:hunter2@127.0.0.1:{port}"
        before = time.monotonic()
        process = start(tmp_path, uri)
        out, errors = process.communicate()
        assert (process.returncode, out, errors) == (0, "", "")
        events = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    assert events[-1]["seconds"] < 30 + 5 and time.monotonic() - before < 45  # 5 s for importing MLflow on a busy machine
    (said,) = [event["message"] for event in events if "message" in event]
    assert "not logged: the run, epoch 1, epoch 2, figure line, tags, the model, the final metrics, the seconds" in said
    assert "hunter2" not in said and "someone" not in said
