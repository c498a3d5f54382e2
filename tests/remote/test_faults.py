"""A run and its tracking server: whatever the server does, nothing is lost, and `make sync` brings the rest, once."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import servers
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from small_training import SCRIPT, tiny_project

ACCOUNT = {"MLFLOW_TRACKING_USERNAME": servers.USER, "MLFLOW_TRACKING_PASSWORD": servers.PASSWORD}


@pytest.fixture
def project(tmp_path) -> Path:
    return tiny_project(tmp_path / "project")


def train(project: Path, address: str, *words: str, **account: str) -> list[dict]:
    """A small run as a stage would start it; what it said."""
    said = project / "said"
    said.unlink(missing_ok=True)
    environment = {"MLFLOW_TRACKING_URI": address, "NBPROOF_EVENTS": str(said), "NBPROOF_OUTPUT": str(project)}
    _run(project, 0, [SCRIPT, *words], environment | (account or ACCOUNT))
    return [json.loads(line) for line in said.read_text().splitlines()]


def sync(project: Path, address: str, code: int = 0, **account: str) -> str:
    script = "import sys; from nbproof.tracking.sync import sync; sys.exit(sync())"
    return _run(project, code, [script], {"MLFLOW_TRACKING_URI": address} | (account or ACCOUNT))


def _run(project: Path, code: int, words: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", *words],
        cwd=project,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    said = done.stdout + done.stderr
    assert done.returncode == code and (words[0] != SCRIPT or not said), said
    return said


@pytest.fixture
def store(monkeypatch, request):
    """A client of the healthy server, with an experiment of the test's own."""
    import mlflow

    def client(address: str):
        for name, value in ACCOUNT.items():
            monkeypatch.setenv(name, value)
        return mlflow.MlflowClient(address)

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{request.node.name} {time.time()}")
    return client


def the_run(client):
    """The one run of this test's experiment, whole: as if the server had never failed."""
    experiment = client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"])
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.1", "epochs": "2"}
    history = client.get_metric_history(run.info.run_id, "accuracy")
    assert sorted((each.step, each.value) for each in history) == [(1, 0.1), (2, 0.2)], "each epoch once"
    assert run.data.metrics["parameters"] == 7850 and run.data.metrics["seconds"] > 0
    assert run.inputs.dataset_inputs[0].dataset.digest == "ab" * 16 and len(run.inputs.dataset_inputs) == 1
    assert run.data.tags["notebook"] == "x" and run.data.tags["model_digest"] and "unsent" not in run.data.tags
    # by address: by run MLflow 3 asks for logged models too, which 2.x servers do not know
    artifacts = get_artifact_repository(run.info.artifact_uri, tracking_uri=client.tracking_uri)
    assert {each.path for each in artifacts.list_artifacts()} == {"figures", "model"}
    assert [each.path for each in artifacts.list_artifacts("model")] == ["model/MLmodel"]
    return run


def not_whole(events: list[dict]) -> str:
    """The one sentence that says what the server did not take."""
    (said,) = [event["message"] for event in events if "message" in event]
    assert "is kept in mlflow.db, make sync sends it. The results on disk are whole." in said
    assert servers.PASSWORD not in said and servers.USER not in said
    return said


@pytest.mark.parametrize("server", ["mlflow3", "mlflow2"])
def test_a_server_that_answers_has_it_all(server, request, project, store):
    address = request.getfixturevalue(server)
    events = train(project, address)
    assert not [event for event in events if "message" in event]
    the_run(store(address))
    assert "nothing to send" in sync(project, address)


@pytest.mark.parametrize(
    "trouble, after",
    [
        ("refuse", 0),
        ("refuse", 5),
        ("hang", 0),
        ("hang", 5),
        ("slow", 0),
        ("expired", 0),
        ("expired", 5),
    ],
)
def test_what_the_server_did_not_take_is_sent_later_once(trouble, after, mlflow3, project, store):
    with servers.proxied(mlflow3) as proxy:
        proxy.trouble, proxy.after = trouble, after
        events = train(project, proxy.address)
        assert events[-1]["seconds"] < 20 + 25, "20 s for the server; the rest is for the local store on a busy machine"
        if trouble != "slow":  # which may just be fast enough
            not_whole(events)
            assert "1 of 1 runs are still to be sent" in sync(project, proxy.address, code=1)
        proxy.trouble = ""
        sync(project, proxy.address)
    run = the_run(store(mlflow3))
    assert "nothing to send" in sync(project, mlflow3)
    assert the_run(store(mlflow3)).info.run_id == run.info.run_id


def test_a_server_that_comes_back_while_the_notebook_works_has_it_all(mlflow3, project, store):
    with servers.proxied(mlflow3) as proxy:
        proxy.trouble = "refuse"
        environment = os.environ | ACCOUNT | {"MLFLOW_TRACKING_URI": proxy.address, "NBPROOF_OUTPUT": str(project)}
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, "wait", "patient"],
            env=environment,
            cwd=project,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        while not proxy.requests:
            time.sleep(0.1)
        proxy.trouble = ""
        assert process.communicate("go on\n", timeout=180) == ("", "")
    the_run(store(mlflow3))


def test_a_wrong_password_is_said_and_nothing_lost(mlflow3, project, store):
    wrong = {"MLFLOW_TRACKING_USERNAME": servers.USER, "MLFLOW_TRACKING_PASSWORD": "wrong"}
    said = not_whole(train(project, mlflow3, **wrong))
    assert "401" in said or "authenticated" in said.lower()
    assert "did not take the run of x" in sync(project, mlflow3, code=1, **wrong)
    assert "has 1 more: x" in sync(project, mlflow3)
    the_run(store(mlflow3))


def test_kept_runs_reach_an_older_server_too(mlflow2, project, store):
    not_whole(train(project, "http://127.0.0.1:9"))
    not_whole(train(project, "http://127.0.0.1:9", "short"))
    assert "has 2 more: x, x" in sync(project, mlflow2)
    client = store(mlflow2)
    experiment = client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"])
    assert sorted(run.info.status for run in client.search_runs([experiment.experiment_id])) == ["FINISHED"] * 2


def test_a_sync_that_breaks_off_is_completed_by_the_next(mlflow3, project, store):
    not_whole(train(project, "http://127.0.0.1:9"))
    for after in (2, 4, 6, 7):
        with servers.proxied(mlflow3) as proxy:
            proxy.trouble, proxy.after = "refuse", after
            sync(project, proxy.address, code=1)
    sync(project, mlflow3)
    the_run(store(mlflow3))


def test_a_run_that_one_server_began_is_whole_enough_for_another(mlflow3, mlflow2, project, store):
    with servers.proxied(mlflow3) as proxy:
        proxy.trouble, proxy.after = "refuse", 5
        not_whole(train(project, proxy.address))
    assert "has 1 more: x" in sync(project, mlflow2)
    client = store(mlflow2)
    (run,) = client.search_runs([client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"]).experiment_id])
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.1", "epochs": "2"}
    assert run.data.metrics["parameters"] == 7850


def test_a_run_that_the_server_refuses_keeps_no_other_back(mlflow3, project, store, monkeypatch):
    client, name = store(mlflow3), os.environ["MLFLOW_EXPERIMENT_NAME"]
    deleted = client.create_experiment(f"{name} deleted")
    client.delete_experiment(deleted)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{name} deleted")
    not_whole(train(project, "http://127.0.0.1:9"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    not_whole(train(project, "http://127.0.0.1:9"))
    said = sync(project, mlflow3, code=1)
    assert "did not take the run of x" in said and "has 1 more: x" in said
    assert "1 of 2 runs are still to be sent" in said
    the_run(client)
    client.restore_experiment(deleted)
    assert "has 1 more: x" in sync(project, mlflow3)


def test_a_training_that_died_beside_a_dead_server_is_sent_as_killed(mlflow3, project, store):
    environment = os.environ | ACCOUNT | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "NBPROOF_OUTPUT": str(project)}
    command = [sys.executable, "-c", SCRIPT, "hang"]
    process = subprocess.Popen(command, env=environment, cwd=project, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    assert "Still at work" in sync(project, mlflow3)
    process.kill()
    process.communicate()
    assert "has 1 more: x" in sync(project, mlflow3)
    client = store(mlflow3)
    (run,) = client.search_runs([client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"]).experiment_id])
    assert run.info.status == "KILLED" and len(client.get_metric_history(run.info.run_id, "accuracy")) == 2
