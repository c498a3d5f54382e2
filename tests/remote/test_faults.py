"""A training and its tracking server: whatever the server does, nothing is lost, and `make sync` brings the rest, once."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import servers
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from servers import ROOT
from small_training import SCRIPT

ACCOUNT = {"MLFLOW_TRACKING_USERNAME": servers.USER, "MLFLOW_TRACKING_PASSWORD": servers.PASSWORD}


@pytest.fixture
def project(tmp_path) -> Path:
    """What notebooks share and the commands, without a run."""
    folder = tmp_path / "project"
    for each in ("notebooks/digits", "pipeline"):
        shutil.copytree(ROOT / each, folder / each, ignore=shutil.ignore_patterns("__pycache__"))
    for each in ("requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / each, folder / each)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def train(project: Path, address: str, *words: str, **account: str) -> list[dict]:
    """A small training as a stage would start it; what it said."""
    said = project / "said"
    said.unlink(missing_ok=True)
    environment = os.environ | {
        "PYTHONPATH": str(project / "notebooks"), "MLFLOW_TRACKING_URI": address, "PROGRESS_FILE": str(said), "OUTPUT_ROOT": str(project),
    } | (account or ACCOUNT)
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], env=environment, cwd=project, capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return [json.loads(line) for line in said.read_text().splitlines()]


def sync(project: Path, address: str, code: int = 0, **account: str) -> str:
    environment = os.environ | {"MLFLOW_TRACKING_URI": address} | (account or ACCOUNT)
    done = subprocess.run([sys.executable, "-m", "pipeline", "sync"], cwd=project, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


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
    history = client.get_metric_history(run.info.run_id, "validation_accuracy")
    assert sorted((each.step, each.value) for each in history) == [(1, 0.1), (2, 0.2)], "each epoch once"
    assert run.data.metrics["parameters"] == 7850 and run.data.metrics["seconds"] > 0
    assert run.inputs.dataset_inputs[0].dataset.digest == "ab" * 16 and len(run.inputs.dataset_inputs) == 1
    assert run.data.tags["notebook"] == "x" and run.data.tags["model_digest"] == "d" * 64 and "server_run" not in run.data.tags
    # by address: by run MLflow 3 asks for logged models too, which 2.x servers do not know
    artifacts = get_artifact_repository(run.info.artifact_uri, tracking_uri=client.tracking_uri)
    assert {each.path for each in artifacts.list_artifacts()} == {"figures", "model"}
    assert "model/data/model.pt2" in [each.path for each in artifacts.list_artifacts("model/data")]
    return run


def not_whole(events: list[dict]) -> str:
    """The one sentence that says what the server did not take."""
    (said,) = [event["message"] for event in events if "message" in event]
    assert "kept in unsent/, make sync sends it. The results on disk are whole." in said
    assert servers.PASSWORD not in said and servers.USER not in said
    return said


@pytest.mark.parametrize("server", ["mlflow3", "mlflow2"])
def test_a_server_that_answers_has_it_all(server, request, project, store):
    address = request.getfixturevalue(server)
    events = train(project, address)
    assert not [event for event in events if "message" in event] and not (project / "unsent").exists()
    the_run(store(address))
    assert "nothing to send" in sync(project, address)


@pytest.mark.parametrize("trouble, after", [
    ("refuse", 0), ("refuse", 9), ("hang", 0), ("hang", 9), ("slow", 0), ("expired", 0), ("expired", 9),
])
def test_what_the_server_did_not_take_is_sent_later_once(trouble, after, mlflow3, project, store):
    with servers.proxied(mlflow3) as proxy:
        proxy.trouble, proxy.after = trouble, after
        events = train(project, proxy.address)
        assert events[-1]["seconds"] < 20 + 25, "20 s for the server; the rest is for MLflow's own store on a busy machine"
        said = not_whole(events)
        assert ("the run" in said) == (after == 0 and trouble != "slow")
        if not after and trouble != "slow":
            assert "1 of 1 runs are still kept" in sync(project, proxy.address, code=1)
        proxy.trouble = ""
        sync(project, proxy.address)
    run = the_run(store(mlflow3))
    assert "nothing to send" in sync(project, mlflow3)
    assert the_run(store(mlflow3)).info.run_id == run.info.run_id


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
    for after in (2, 6, 12, 16):
        with servers.proxied(mlflow3) as proxy:
            proxy.trouble, proxy.after = "refuse", after
            sync(project, proxy.address, code=1)
    sync(project, mlflow3)
    the_run(store(mlflow3))


def test_a_run_that_one_server_began_is_whole_enough_for_another(mlflow3, mlflow2, project, store):
    with servers.proxied(mlflow3) as proxy:
        proxy.trouble, proxy.after = "refuse", 9
        not_whole(train(project, proxy.address))
    assert "has 1 more: x" in sync(project, mlflow2)
    client = store(mlflow2)
    (run,) = client.search_runs([client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"]).experiment_id])
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.1", "epochs": "2"} and run.data.metrics["parameters"] == 7850


def test_a_run_that_the_server_refuses_keeps_no_other_back(mlflow3, project, store, monkeypatch):
    client, name = store(mlflow3), os.environ["MLFLOW_EXPERIMENT_NAME"]
    deleted = client.create_experiment(f"{name} deleted")
    client.delete_experiment(deleted)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{name} deleted")
    not_whole(train(project, "http://127.0.0.1:9"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    not_whole(train(project, "http://127.0.0.1:9"))
    said = sync(project, mlflow3, code=1)
    assert "did not take the run of x" in said and "has 1 more: x" in said and "1 of 2 runs are still kept" in said
    the_run(client)
    client.restore_experiment(deleted)
    assert "has 1 more: x" in sync(project, mlflow3)


def test_a_training_that_died_beside_a_dead_server_is_sent_as_killed(mlflow3, project, store):
    environment = os.environ | ACCOUNT | {"PYTHONPATH": str(project / "notebooks"), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "OUTPUT_ROOT": str(project)}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, "hang"], env=environment, cwd=project, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    assert "Still being trained" in sync(project, mlflow3)
    process.kill()
    process.communicate()
    assert "has 1 more: x" in sync(project, mlflow3)
    client = store(mlflow3)
    (run,) = client.search_runs([client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"]).experiment_id])
    assert run.info.status == "KILLED" and len(client.get_metric_history(run.info.run_id, "validation_accuracy")) == 2
