"""MLflow runs: complete in the local store and on a server, and no training lost where the server does not answer."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_training import SCRIPT, tiny_project

from nbproof.notebook.tracking import without_credentials


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A new MLflow database, which takes MLflow seconds to make."""
    import mlflow

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def server(tmp_path, empty_store) -> str:
    """Another store than the project's, in tmp_path/server.db."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'server.db')}"


@pytest.fixture
def project(tmp_path, empty_store) -> Path:
    folder = tiny_project(tmp_path / "project")
    shutil.copy(empty_store, folder / "mlflow.db")
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "state"]):
        subprocess.run(["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *words], cwd=folder, check=True)
    return folder


def begin(project: Path, *words: str, **environment: str) -> subprocess.Popen:
    """Start the script as a stage would; what it says to the person goes to `said`."""
    variables = os.environ | {"NBPROOF_EVENTS": str(project / "said"), "NBPROOF_OUTPUT": str(project)} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *words], env=variables, cwd=project, **pipes)


def train(project: Path, *words: str, **environment: str) -> list[dict]:
    """Run the script to its end, which prints nothing; what it said."""
    (project / "said").unlink(missing_ok=True)
    process = begin(project, *words, **environment)
    assert process.communicate(timeout=120) == ("", "") and process.returncode == 0
    return [json.loads(line) for line in (project / "said").read_text().splitlines()]


def sync(project: Path, address: str, code: int = 0) -> str:
    words = [sys.executable, "-c", "import sys; from nbproof.tracking.sync import sync; sys.exit(sync())"]
    variables = os.environ | {"MLFLOW_TRACKING_URI": address}
    done = subprocess.run(words, cwd=project, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def runs(store: Path, experiment: str = "tiny"):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{store}")
    place = client.get_experiment_by_name(experiment).experiment_id
    return client, client.search_runs([place], order_by=["start_time"])


def _known(store: Path) -> list:
    """The runs of a store that may not have the experiment yet."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{store}")
    return client.search_runs([each.experiment_id for each in client.search_experiments()])


def the_run(store: Path, tmp_path: Path):
    """The one run of the store, whole and once."""
    client, (run,) = runs(store)
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.1", "epochs": "2"}
    history = client.get_metric_history(run.info.run_id, "accuracy")
    assert sorted((each.step, each.value) for each in history) == [(1, 0.1), (2, 0.2)]
    assert len(client.get_metric_history(run.info.run_id, "broken")) == 2, "NaN is sent once, too"
    assert run.data.metrics["parameters"] == 7850 and run.data.metrics["seconds"] > 0
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("table", "ab" * 16)
    assert {"notebook": "x", "device": "cpu"}.items() <= run.data.tags.items() and "unsent" not in run.data.tags
    folder = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    assert (folder / "figures" / "line.png").stat().st_size and (folder / "model" / "MLmodel").read_text() == "a model"
    return run


def test_a_run_is_complete(project, tmp_path):
    train(project)
    run = the_run(project / "mlflow.db", tmp_path)
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=project, text=True).strip()
    from nbproof.notebook.files import digest

    assert run.data.tags["mlflow.source.git.commit"] == head
    assert run.data.tags["model_digest"] == digest(project / "models/x")
    assert run.info.artifact_uri.startswith((project / "mlartifacts").as_uri())


def test_changed_sources_are_told_and_kept(project, tmp_path):
    (project / ".gitignore").write_text("/mlflow.db*\n/mlartifacts/\n/said\n/models/\n")
    git = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "add", "."], cwd=project, check=True)
    subprocess.run([*git, "commit", "-qm", "all"], cwd=project, check=True)
    train(project)
    (project / "params.yaml").write_text("models:\n  x: {lr: 0.2, epochs: 2}\n")
    train(project)
    client, (clean, changed) = runs(project / "mlflow.db")
    assert (clean.data.tags["git_dirty"], changed.data.tags["git_dirty"]) == ("false", "true")
    assert "source.diff" not in [each.path for each in client.list_artifacts(clean.info.run_id)]
    diff = Path(client.download_artifacts(changed.info.run_id, "source.diff", str(tmp_path))).read_text()
    assert "+  x: {lr: 0.2, epochs: 2}" in diff
    assert clean.data.tags["mlflow.note.content"] == "notebooks/x.ipynb on table."
    assert changed.data.metrics["system/cpu_seconds"] > 0


def test_mlflows_page_opens_for_training_and_has_no_empty_experiment(project):
    (project / "mlflow.db").unlink()
    train(project)
    import mlflow

    (experiment,) = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}").search_experiments()
    assert experiment.name == "tiny" and experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert experiment.tags["mlflow.note.content"].startswith("Runs of the notebooks of tiny.")


def test_by_hand_it_is_an_exploration_below_scratch(project):
    train(project, NBPROOF_OUTPUT="")
    assert len(runs(project / "mlflow.db", "explore")[1]) == 1 and (project / "scratch/models/x/MLmodel").exists()


def test_an_error_leaves_a_failed_run(project):
    assert "in the middle" in begin(project, "raise").communicate()[1]
    assert [run.info.status for run in runs(project / "mlflow.db")[1]] == ["FAILED"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_killed_run_is_closed_by_the_next(project, tmp_path, server):
    process = begin(project, "hang", MLFLOW_TRACKING_URI=server)
    assert process.stdout.readline() == "ready\n"
    assert "Still at work, and sent the next time: x" in sync(project, server)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    client, (killed,) = runs(project / "mlflow.db")
    assert killed.info.status == "RUNNING"
    named, host = {killed.info.run_id: "killed"}, socket.gethostname()
    us = f"{host}:{os.getpid()}"
    for name, tag, began in [("alive", us, time.time()), ("reused", us, 1), ("no number", f"{host}:none", 1)]:
        made = client.create_run(killed.info.experiment_id, int(began * 1000), {"process": tag})
        named[made.info.run_id] = name
    train(project, "short")
    found = {named.get(run.info.run_id, "next"): run.info.status for run in runs(project / "mlflow.db")[1]}
    left = {"alive": "RUNNING", "reused": "KILLED", "no number": "RUNNING"}
    assert found == left | {"killed": "KILLED", "next": "FINISHED"}
    assert "has 1 more: x" in sync(project, server)
    assert [run.info.status for run in runs(tmp_path / "server.db")[1]] == ["KILLED"]


def test_three_at_once_on_a_new_database_and_server(project, tmp_path):
    (project / "mlflow.db").unlink()
    server = f"sqlite:///{tmp_path / 'server.db'}"
    processes = [begin(project, "short", "patient", MLFLOW_TRACKING_URI=server) for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == [""] * 3
    assert '"message"' not in (project / "said").read_text()
    for store in (project / "mlflow.db", tmp_path / "server.db"):
        assert [run.info.status for run in runs(store)[1]] == ["FINISHED"] * 3


def test_a_server_gets_the_curve_while_the_notebook_works_and_all_at_the_end(project, tmp_path, server, empty_store):
    process = begin(project, "hang", MLFLOW_TRACKING_URI=server)
    assert process.stdout.readline() == "ready\n"
    ends = time.monotonic() + 60
    while not (_known(tmp_path / "server.db") and len(_known(tmp_path / "server.db")[0].data.metrics) == 2):
        assert time.monotonic() < ends
        time.sleep(0.3)
    assert _known(tmp_path / "server.db")[0].info.status == "RUNNING"
    process.kill()
    process.communicate()
    for each in (project / "mlflow.db", tmp_path / "server.db"):
        shutil.copy(empty_store, each)
    events = train(project, "patient", MLFLOW_TRACKING_URI=server)
    assert not [event for event in events if "message" in event]
    sent, kept = (the_run(store, tmp_path / store.stem) for store in (tmp_path / "server.db", project / "mlflow.db"))
    assert sent.data.tags["key"] == kept.data.tags["key"] and sent.info.run_id != kept.info.run_id
    assert "nothing to send" in sync(project, server)


@pytest.mark.parametrize("kind", ["closed", "silent", "no folder"])
def test_a_server_that_does_not_answer_loses_nothing(project, tmp_path, server, kind):
    """At most 20 s in all, one sentence without the password, and make sync sends it all, once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if kind == "silent" else 9
        dead = f"http://someone:hun@ter2@127.0.0.1:{port}"
        dead = "sqlite:////dev/null/none/mlflow.db" if kind == "no folder" else dead
        events = train(project, MLFLOW_TRACKING_URI=dead)
    assert events[-1]["seconds"] < 20 + 25, "25 s for the local store on a busy machine"
    (said,) = [event["message"] for event in events if "message" in event]
    assert "is kept in mlflow.db, make sync sends it. The results on disk are whole." in said
    assert not [word for word in ("someone", "hun", "ter2") if word in said]
    if kind == "closed":
        assert "1 of 1 runs are still to be sent" in sync(project, dead, code=1)
        for _ in range(2):
            sync(project, server)
            the_run(tmp_path / "server.db", tmp_path)


def test_a_call_that_was_given_up_stays_unseen(project):
    """Its thread is still at work, and tries again, while the notebook goes on."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        events = train(project, "hasty", "short", MLFLOW_TRACKING_URI=address)
        silent.settimeout(0)
        asked = [silent.accept() for _ in range(2)]
    assert "answered too slowly for the 1 s" in events[0]["message"] and len(asked) == 2


def test_a_trial_logs_to_its_own_run_and_is_told_of_errors(project, tmp_path, server):
    import mlflow

    client = mlflow.MlflowClient(server)
    place = client.create_experiment("sweep", (tmp_path / "there").as_uri())
    trial = client.create_run(place, tags={"trial": "3"}).info.run_id
    train(project, MLFLOW_TRACKING_URI=server, MLFLOW_RUN_ID=trial)
    run = client.get_run(trial)
    assert run.info.status == "FINISHED" and run.data.params["lr"] == "0.1" and run.data.metrics["parameters"] == 7850
    assert not _known(project / "mlflow.db")
    process = begin(project, MLFLOW_TRACKING_URI=server, MLFLOW_RUN_ID="missing")
    assert "missing" in process.communicate()[1] and process.returncode


def test_a_local_store_that_fails_costs_no_result(project):
    (project / "mlflow.db").unlink()
    (project / "mlflow.db").mkdir()
    (said,) = [event["message"] for event in train(project) if "message" in event]
    assert "mlflow.db did not take all of the run of x" in said and (project / "models/x/MLmodel").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_kill_while_the_store_is_made_breaks_nothing(project):
    (project / "mlflow.db").unlink()
    process = begin(project)
    ends = time.monotonic() + 120
    while not [each for each in project.glob("mlflow.db*") if each.suffix != ".lock" and each.stat().st_size]:
        assert time.monotonic() < ends and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not [event for event in train(project) if "message" in event]
    assert len(runs(project / "mlflow.db")[1]) == 1 and not list(project.glob("mlflow.db.new-*"))


def test_artifacts_follow_a_project_that_was_moved_or_copied(project, tmp_path):
    train(project)
    moved = project.rename(tmp_path / "moved to")
    train(moved, "short")
    copied = Path(shutil.copytree(moved, tmp_path / "copied"))
    train(copied, "short")
    assert not project.exists()
    for folder, count in ((moved, 2), (copied, 3)):
        client, found = runs(folder / "mlflow.db")
        assert len(found) == count
        for run in found:
            assert run.info.artifact_uri.startswith((folder / "mlartifacts").as_uri())
        assert client.list_artifacts(found[0].info.run_id, "model")


def altered(path: Path, statement: str) -> sqlite3.Connection:
    """An open connection, in which the statement was executed."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(statement)
    return database


@pytest.mark.parametrize("damage, told", [
    (lambda path: path.write_bytes(b"no database" * 1000), "cannot be read (file is not a database): put a copy"),
    (lambda path: (path.unlink(), path.mkdir()), "cannot be read (unable to open database file): put a copy"),
    (lambda path: altered(path, "BEGIN EXCLUSIVE"), "is locked by another program: end that"),
    (lambda path: altered(path, "UPDATE alembic_version SET version_num = '451aebb31d03'").close(),
     "an older one is brought up to date by `mlflow db upgrade sqlite:///mlflow.db`, inside .venv, after a copy"),
    (lambda path: altered(path, "UPDATE alembic_version SET version_num = 'later'").close(),
     "is of another version of MLflow: a newer one needs that MLflow"),
], ids=["damaged", "folder", "locked", "older", "newer"])
def test_a_store_that_cannot_be_used_is_one_sentence_with_the_cure(project, inside, capfd, damage, told):
    from nbproof.tracking import predict, registry
    from nbproof.notebook.errors import UserError

    kept = damage(inside(project) / "mlflow.db")
    (project / "models" / "x").mkdir(parents=True)
    (project / "metrics").mkdir()
    (project / "models" / "x" / "MLmodel").write_text("signature: {inputs: '[]'}\n")
    (project / "metrics" / "x.json").write_text('{"accuracy": 1}')
    (project / "dvc.lock").write_text("stages: {x: {deps: [], outs: [{path: models/x}, {path: metrics/x.json}]}}")
    (project / "table.csv").write_text("a\n1\n")
    for call in (lambda: registry.promote("x"), lambda: predict.predict([Path("table.csv")])):
        with pytest.raises(UserError) as refused:
            call()
        assert "mlflow.db" in str(refused.value) and told in str(refused.value) and "SQL" not in str(refused.value)
        assert "\n" not in str(refused.value)
    assert capfd.readouterr().out == "" and (kept is None or kept)


def test_a_race_for_the_same_data_is_tried_again(monkeypatch):
    from mlflow.exceptions import MlflowException

    from nbproof.notebook import tracking

    class Racing:
        asked = 0

        def log_inputs(self, run_id, datasets):
            self.asked += 1
            if self.asked < 9:
                raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id")
            if datasets == "broken":
                raise MlflowException("no such run")

    monkeypatch.setattr(tracking.time, "sleep", lambda _: None)
    racing = Racing()
    tracking._log_inputs(racing, "r", [])
    assert racing.asked == 9
    with pytest.raises(MlflowException, match="no such run"):
        tracking._log_inputs(racing, "r", "broken")


@pytest.mark.parametrize(
    "text, shown",
    [
        ("https://user:secret@example.org/x", "https://example.org/x"),
        ("at http://u:p@a and\n http://v:w@b:8", "at http://a and http://b:8"),
        ("http://u:p@ss@example.org", "http://example.org"),
        ("https://example.org/@x", "https://example.org/@x"),
        ("a@b", "a@b"),
        ("(sqlite3.DatabaseError) malformed [SQL: SELECT x]", "(sqlite3.DatabaseError) malformed"),
    ],
)
def test_credentials_are_cut_out(text, shown):
    assert without_credentials(text) == shown
