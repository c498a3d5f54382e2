"""A run is whole in the local store and, at once or later, on the server; no failure costs it."""

import json
import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy
import pytest
from matplotlib.figure import Figure
from projects import nbproof

from nbproof.notebook import tracking
from nbproof.notebook.files import digest, output_folder
from nbproof.notebook.tracking import sync

DEAD = "http://someone:hun@ter2@127.0.0.1:9"


@pytest.fixture
def project(tmp_path, inside, empty, monkeypatch) -> Path:
    """A project without notebooks, in which this process works as a stage does."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "project.yaml").write_text("name: tiny\nmetric: {key: accuracy, goal: max}\n")
    shutil.copy(empty, folder / "mlflow.db")
    monkeypatch.setenv("NBPROOF_OUTPUT", str(folder))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return inside(folder)


@pytest.fixture
def server(tmp_path, empty) -> str:
    """Another store than the project's."""
    return f"sqlite:///{shutil.copy(empty, tmp_path / 'server.db')}"


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """The sentences of the runs."""
    sentences = []
    monkeypatch.setattr(tracking, "say", lambda message: sentences.append(message))
    return sentences


def train(short: bool = False) -> tracking.Run:
    run = tracking.start("x", {"lr": 0.1, "epochs": 2}, data=("table", "ab" * 32),
                         tags={"device": "cpu"})
    for epoch in (1, 2):
        run.log(epoch, {"accuracy": epoch / 10, "broken": float("nan")})
    if not short:
        run.figure("line", Figure())
        (output_folder("models/x") / "MLmodel").write_text("a model")
        run.model("x")
    run.finish({"accuracy": 0.2, "parameters": 7850, "loss": numpy.float32(1.5), "data": "table"})
    return run


def runs_in(store: str, experiment: str = "tiny") -> list:
    client = tracking.client(store)
    known = client.get_experiment_by_name(experiment)
    return client.search_runs([known.experiment_id], order_by=["start_time"]) if known else []


def check_whole(store: str, tmp_path: Path):
    """Assert that the store has one run, whole and once, and return it."""
    client, (run,) = tracking.client(store), runs_in(store)
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.1", "epochs": "2"}
    history = client.get_metric_history(run.info.run_id, "accuracy")
    assert sorted((row.step, row.value) for row in history) == [(1, 0.1), (2, 0.2)]
    assert len(client.get_metric_history(run.info.run_id, "broken")) == 2, "NaN, too"
    assert (run.data.metrics["parameters"], run.data.metrics["loss"]) == (7850, 1.5)
    assert run.data.metrics["seconds"] > 0
    facts = {"notebook": "x", "device": "cpu", "data": "table", "data_digest": "ab" * 32}
    assert facts.items() <= run.data.tags.items()
    assert tracking.UNSENT not in run.data.tags
    copy = tmp_path / run.info.run_id
    copy.mkdir()
    folder = Path(client.download_artifacts(run.info.run_id, "", str(copy)))
    assert (folder / "figures" / "line.png").stat().st_size
    assert (folder / "model" / "MLmodel").read_text() == "a model"
    return run


def test_a_run_is_complete_and_names_commit_changes_and_model(project, tmp_path, said):
    who = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "project.yaml"], ["commit", "-qm", "state"]):
        subprocess.run([*who, *words], cwd=project, check=True)
    train()
    run = check_whole(tracking.local_address(), tmp_path)
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    assert run.data.tags["mlflow.source.git.commit"] == head
    assert run.data.tags["git_dirty"] == "false"
    assert run.data.tags["model_digest"] == digest(project / "models/x")
    assert run.info.artifact_uri.startswith((project / "mlartifacts").as_uri())
    (project / "project.yaml").write_text("name: tiny\nmetric: {key: loss, goal: min}\n")
    run = train(short=True)
    changed = run.client.download_artifacts(run.id, "source.diff", str(tmp_path))
    assert "+metric: {key: loss, goal: min}" in Path(changed).read_text() and not said
    assert tracking.runs_of(run, ["x"]) == {"run.x": digest(project / "models/x")}


def test_by_hand_an_exploration_and_in_a_sweep_the_trials_own_run(
        project, tmp_path, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "a stranger's, which is ignored")
    monkeypatch.delenv("NBPROOF_OUTPUT")
    train()
    assert len(runs_in("", "explore")) == 1 and (project / "scratch/models/x/MLmodel").exists()
    client = tracking.client(server)
    experiment = client.create_experiment("sweep", (tmp_path / "there").as_uri())
    trial = client.create_run(experiment, tags={"trial": "3"}).info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("NBPROOF_RUN_ID", trial)
    train()
    recorded, = runs_in(server, "sweep")
    assert recorded.info.status == "FINISHED" and recorded.data.metrics["accuracy"] == 0.2
    monkeypatch.setenv("NBPROOF_RUN_ID", "missing")
    with pytest.raises(mlflow.MlflowException, match="missing"):
        train()


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_a_server_that_does_not_answer_loses_nothing(
        project, tmp_path, server, kind, monkeypatch, said, capsys):
    """One sentence without the password, and sync sends the run, once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://someone:hun@ter2@127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD if kind == "closed" else address)
        train()
    (sentence,) = said
    assert "is kept in mlflow.db, nbproof sync sends it. The results on disk are whole." in sentence
    assert not [word for word in ("someone", "hun", "ter2") if word in sentence]
    if kind == "closed":
        assert sync() == 1 and "Not sent: x (" in capsys.readouterr().err
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        assert sync() == 0 and "took 1 runs: x." in capsys.readouterr().out
        assert sync() == 0 and "took 0 runs." in capsys.readouterr().out
        check_whole(server, tmp_path)


def test_what_is_infinite_is_a_tag(project, said):
    """MLflow's store has 1.797e308 instead, without a word."""
    run = tracking.start("x", {})
    for step in (1, 2):
        run.log(step, {"loss": float("inf"), "accuracy": float("nan")})
    run.finish({"loss": float("inf"), "least": -float("inf")})
    recorded, = runs_in("")
    assert recorded.data.tags["loss"] == "inf at step 2" and "loss" not in recorded.data.metrics
    assert recorded.data.tags["least"] == "-inf at step 0"
    assert math.isnan(recorded.data.metrics["accuracy"]) and not said


def test_a_killed_process_leaves_no_running_run(project, server, monkeypatch, capsys):
    script = ("import os\nfrom nbproof.notebook import tracking\n"
              "tracking.start('x', {}).log(1, {'a': 1})\nos._exit(9)")
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"MLFLOW_TRACKING_URI": DEAD},
                   stderr=subprocess.DEVNULL, check=False)
    local = tracking.client(tracking.local_address())
    (ended,) = runs_in("")
    others = [local.create_run(ended.info.experiment_id, tags=tags).info.run_id for tags in (
        {"process": tracking.process(), tracking.UNSENT: "x"}, {"process": "elsewhere:1"}, {})]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert sync() == 0 and "took 1 runs: x." in capsys.readouterr().out
    assert [run.info.status for run in runs_in(server)] == ["KILLED"]
    states = [local.get_run(run).info.status for run in others]
    assert states == ["RUNNING", "KILLED", "RUNNING"], "at work, of another machine, no notebook's"


def test_a_stage_that_never_called_finish_gives_its_run_its_own_state(single, inside):
    start = "from nbproof.notebook import tracking\nrun = tracking.start('x', {})\n"
    notebook = single / "notebooks/x.ipynb"
    whole = notebook.read_text()
    for code, status in ((start, "FINISHED"), (f"{start}1 / 0", "FAILED")):
        content = json.loads(whole)
        content["cells"].append(content["cells"][-1] | {"id": "start", "source": code})
        notebook.write_text(json.dumps(content))
        done = nbproof(single, "run", "--no-register")
        assert (done.returncode == 0) == (status == "FINISHED"), done.stdout
        inside(single)
        assert runs_in("", "tiny")[-1].info.status == status


def test_three_at_once_on_a_half_made_database(project):
    """Their migrations and their new data would race; each process ends without a word."""
    (project / "mlflow.db").write_bytes(b"")
    (project / "mlflow.db.new").write_bytes(b"what a kill left")
    script = ("from nbproof.notebook import tracking\n"
              "tracking.start('x', {}, data=('table', 'ab')).finish({})")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    processes = [subprocess.Popen([sys.executable, "-c", script], **pipes) for _ in range(3)]
    assert [process.communicate()[0] for process in processes] == [b""] * 3
    assert [run.info.status for run in runs_in("")] == ["FINISHED"] * 3
    assert not list(project.glob("mlflow.db.new*"))


@pytest.mark.parametrize("name", ["a%20b", "p a#b%20ü", "q?x=1"])
def test_any_folder_name_has_its_store_inside(tmp_path, inside, name, monkeypatch, said):
    """MLflow unquotes the address of a store: without quotes, `a%20b` wrote into `a b`."""
    folder = tmp_path / name
    for made in (folder, tmp_path / "a b"):
        made.mkdir()
        (made / "project.yaml").write_text("name: tiny\nmetric: {key: a, goal: max}\n")
    monkeypatch.setenv("NBPROOF_OUTPUT", str(folder))
    inside(folder)
    run = train()
    assert not said and (folder / "mlflow.db").stat().st_size
    assert tracking.database(tracking.local_address()) == folder / "mlflow.db"
    assert [file.path for file in run.client.list_artifacts(run.id, "model")] == ["model/MLmodel"]
    assert {path.name for path in tmp_path.iterdir()} == {name, "a b"}
    assert [path.name for path in (tmp_path / "a b").iterdir()] == ["project.yaml"]


def test_artifacts_follow_a_project_that_was_moved_or_copied(
        project, tmp_path, server, inside, monkeypatch, said, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    train()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    moved = project.rename(tmp_path / "moved to")
    copied = Path(shutil.copytree(moved, tmp_path / "copied"))
    for folder in (moved, copied):
        inside(folder)
        monkeypatch.setenv("NBPROOF_OUTPUT", str(folder))
        run = train()
        here = (folder / "mlartifacts").as_uri()
        assert tracking.client().get_run(run.id).info.artifact_uri.startswith(here)
        assert len(runs_in("", "tiny (moved, 1)")) == 1
    assert not project.exists(), "nothing is written where it was"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert sync() == 0
    check_whole(server, tmp_path)


def altered(path: Path, statement: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(statement)
    return database


@pytest.mark.parametrize("damage, reason", [
    (lambda path: path.write_bytes(b"no database" * 1000), "file is not a database"),
    (lambda path: (path.unlink(), path.mkdir()), "unable to open database file"),
    (lambda path: altered(path, "BEGIN EXCLUSIVE"), "database is locked"),
    (lambda path: altered(path, "UPDATE alembic_version SET version_num = '451aebb31d03'").close(),
     "out-of-date database schema"),
], ids=["damaged", "folder", "locked", "older"])
def test_a_store_that_cannot_be_used_is_one_sentence_and_costs_no_result(
        project, damage, reason, said):
    kept = damage(project / "mlflow.db")
    train()
    (sentence,) = said
    assert "mlflow.db did not take all of the run of x" in sentence and reason in sentence
    assert "mlflow db upgrade" in sentence and "[SQL" not in sentence and "\n" not in sentence
    assert (project / "models/x/MLmodel").exists() and (kept is None or kept)


@pytest.mark.parametrize("text, shown", [
    ("https://user:secret@example.org/x", "https://example.org/x"),
    ("at http://u:p@a and\n http://v:w@b:8", "at http://a and http://b:8"),
    ("http://u:p@ss@example.org", "http://example.org"),
    ("https://example.org/@x", "https://example.org/@x"),
    ("a@b", "a@b"),
    ("(sqlite3.DatabaseError) malformed [SQL: SELECT x]", "(sqlite3.DatabaseError) malformed"),
])
def test_credentials_are_cut_out(text, shown):
    assert tracking.without_credentials(text) == shown
