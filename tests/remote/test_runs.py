"""A run and its server: whatever the server does, nothing is lost, and sync brings the rest."""

import os
import signal
import time
from pathlib import Path

import pytest
import servers
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from nbproof.notebook import tracking


@pytest.fixture
def project(trained, monkeypatch, request) -> Path:
    """A project in which this process works as a stage does, with an experiment of its own."""
    monkeypatch.setenv("NBPROOF_OUTPUT", str(trained))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{request.node.name} {time.time()}")
    return trained


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """The sentences of the runs."""
    sentences = []
    monkeypatch.setattr(tracking, "say", lambda message: sentences.append(message))
    return sentences


def train(address: str, monkeypatch, between=lambda: None) -> None:
    """Log a run of two steps, and call `between` between them."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    run = tracking.start("near", {"lr": 0.1}, data=("table", "ab" * 32))
    for step, after in ((1, between), (2, lambda: None)):
        run.next_copy = 0.0  # it is due
        run.log(step, {"accuracy": step / 10})
        after()
    run.model("near")
    run.finish({"parameters": 7850})


def check_whole(address: str, name: str):
    """Assert that the server has one run in the experiment `name`, whole, and return its id."""
    client = tracking.client(address)
    (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.1"}
    history = client.get_metric_history(run.info.run_id, "accuracy")
    assert sorted((row.step, row.value) for row in history) == [(1, 0.1), (2, 0.2)]
    assert run.data.metrics["parameters"] == 7850 and run.data.tags["data"] == "table"
    assert run.data.tags["model_digest"] and tracking.UNSENT not in run.data.tags
    # By address: by run, MLflow 3 asks for logged models too, which 2.x servers do not know.
    artifacts = get_artifact_repository(run.info.artifact_uri, tracking_uri=client.tracking_uri)
    assert [file.path for file in artifacts.list_artifacts("model")] == ["model/MLmodel"]
    return run.info.run_id


@pytest.mark.parametrize("server", ["mlflow3", "mlflow2"])
def test_a_server_has_each_step_at_once_and_all_at_the_end(
        server, request, project, said, monkeypatch, capsys):
    address, name = request.getfixturevalue(server), os.environ["MLFLOW_EXPERIMENT_NAME"]

    def look() -> None:
        client = tracking.client(address)
        (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
        assert run.data.metrics == {"accuracy": 0.1} and run.info.status == "RUNNING"

    train(address, monkeypatch, look)
    check_whole(address, name)
    assert said == [] and tracking.sync() == 0 and "took 0 runs" in capsys.readouterr().out


def test_a_server_that_is_killed_in_between_gets_the_rest_later_once(
        project, said, tmp_path, monkeypatch, capsys):
    name = os.environ["MLFLOW_EXPERIMENT_NAME"]
    (tmp_path / "server").mkdir()
    with servers.mlflow_server(tmp_path / "server") as server:
        train(server.address, monkeypatch, lambda: server.stop(signal.SIGKILL))
    (sentence,) = said
    assert "is kept in mlflow.db, nbproof sync sends it." in sentence
    assert servers.PASSWORD not in sentence
    assert tracking.sync() == 1 and "Not sent: near (" in capsys.readouterr().err
    port = int(server.address.rpartition(":")[2])
    with servers.mlflow_server(tmp_path / "server", port=port) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "expired")
        assert tracking.sync() == 1 and "401" in capsys.readouterr().err
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", servers.PASSWORD)
        assert tracking.sync() == 0
        first = check_whole(server.address, name)
        assert tracking.sync() == 0 and check_whole(server.address, name) == first


def test_a_run_that_the_server_refuses_keeps_no_other_back(
        mlflow3, project, said, monkeypatch, capsys):
    client, name = tracking.client(mlflow3), os.environ["MLFLOW_EXPERIMENT_NAME"]
    deleted = client.create_experiment(f"{name} deleted")
    client.delete_experiment(deleted)
    for experiment in (f"{name} deleted", name):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
        train("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow3)
    assert tracking.sync() == 1
    printed = capsys.readouterr()
    assert "Not sent: near (" in printed.err and "took 1 runs: near." in printed.out
    check_whole(mlflow3, name)
    client.restore_experiment(deleted)
    assert tracking.sync() == 0
