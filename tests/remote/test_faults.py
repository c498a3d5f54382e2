"""A run and its server: whatever the server does, nothing is lost, and sync brings the rest."""

import os
import time

import pytest
import servers
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from small import ACCOUNT, bare_project

from nbproof.notebook import tracking
from nbproof.notebook.files import output_folder
from nbproof.tracking.sync import sync


@pytest.fixture
def project(tmp_path, inside, monkeypatch, request):
    """A project in which this process works as a stage does, with an experiment of its own."""
    folder = inside(bare_project(tmp_path / "project", ACCOUNT).root)
    settings = {"NBPROOF_OUTPUT": str(folder), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
                "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
                "MLFLOW_EXPERIMENT_NAME": f"{request.node.name} {time.time()}"}
    for name, value in {**ACCOUNT, **settings}.items():
        monkeypatch.setenv(name, value)
    tracking.client(tracking.local_address())
    return folder


@pytest.fixture
def train(project, monkeypatch):
    """`train(address)` logs a small run and returns what it said."""
    def call(address: str, patience: float = 20) -> list[str]:
        said = []
        monkeypatch.setattr(tracking, "PATIENCE", patience)
        monkeypatch.setattr(tracking, "say", lambda message: said.append(message))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        run = tracking.start("x", {"lr": 0.1}, data=("table", "ab" * 32))
        for epoch in (1, 2):
            run.log(epoch, {"accuracy": epoch / 10})
        (output_folder("models/x") / "MLmodel").write_text("a model")
        run.model("x")
        run.finish({"parameters": 7850})
        assert servers.PASSWORD not in str(said)
        return said

    return call


def check_whole(address: str):
    """Assert that the server has the one run of this test, whole, and return it."""
    client = tracking.client(address)
    name = os.environ["MLFLOW_EXPERIMENT_NAME"]
    (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.1"}
    history = client.get_metric_history(run.info.run_id, "accuracy")
    assert sorted((row.step, row.value) for row in history) == [(1, 0.1), (2, 0.2)]
    assert run.data.metrics["parameters"] == 7850 and len(run.inputs.dataset_inputs) == 1
    assert run.data.tags["model_digest"] and tracking.UNSENT not in run.data.tags
    # by address: by run MLflow 3 asks for logged models too, which 2.x servers do not know
    artifacts = get_artifact_repository(run.info.artifact_uri, tracking_uri=client.tracking_uri)
    assert [file.path for file in artifacts.list_artifacts("model")] == ["model/MLmodel"]
    return run


@pytest.mark.parametrize("server", ["mlflow3", "mlflow2"])
def test_a_server_that_answers_has_it_all(server, request, train, capsys):
    address = request.getfixturevalue(server)
    assert train(address, patience=120) == []
    check_whole(address)
    assert sync() == 0 and "took 0 runs" in capsys.readouterr().out


@pytest.mark.parametrize("trouble, after", [
    ("refuse", 0), ("refuse", 5), ("hang", 5), ("expired", 0), ("expired", 6)])
def test_what_the_server_did_not_take_is_sent_later_once(
        trouble, after, mlflow3, train, monkeypatch, capsys):
    with servers.proxied(mlflow3) as proxy:
        proxy.trouble, proxy.after = trouble, after
        (sentence,) = train(proxy.address)
        assert "is kept in mlflow.db, nbproof sync sends it." in sentence
        assert sync() == 1 and "1 runs were not sent" in capsys.readouterr().err
        proxy.trouble = ""
        assert sync() == 0
    run = check_whole(mlflow3)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow3)
    assert sync() == 0 and check_whole(mlflow3).info.run_id == run.info.run_id


def test_a_sync_that_breaks_off_is_completed_by_the_next_also_elsewhere(
        mlflow3, mlflow2, train, monkeypatch):
    assert len(train("http://127.0.0.1:9")) == 1
    for after in (2, 4, 6, 8):
        with servers.proxied(mlflow3) as proxy:
            proxy.trouble, proxy.after = "refuse", after
            monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
            assert sync() == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow2)
    assert sync() == 0
    check_whole(mlflow2)


def test_a_run_that_the_server_refuses_keeps_no_other_back(mlflow3, train, monkeypatch, capsys):
    client, name = tracking.client(mlflow3), os.environ["MLFLOW_EXPERIMENT_NAME"]
    deleted = client.create_experiment(f"{name} deleted")
    client.delete_experiment(deleted)
    for experiment in (f"{name} deleted", name):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
        assert len(train("http://127.0.0.1:9")) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow3)
    assert sync() == 1
    printed = capsys.readouterr()
    assert "did not take the run of x" in printed.err and "took 1 runs: x" in printed.out
    check_whole(mlflow3)
    client.restore_experiment(deleted)
    assert sync() == 0
