"""A run is whole in the local store and, at once or later, on the server; no failure costs it."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from projects import WRITES, cells, commit, nbproof
from stores import log_run, runs_in, whole_run

from nbproof.notebook import tracking
from nbproof.notebook.files import digest
from nbproof.notebook.tracking import sync

DEAD = "http://someone:hun@ter2@127.0.0.1:9"


@pytest.fixture
def server(tmp_path, empty) -> str:
    """Another store than the project's."""
    return f"sqlite:///{shutil.copy(empty, tmp_path / 'server.db')}"


def test_a_run_is_complete_and_names_commit_changes_and_model(project, tmp_path, said):
    (project / ".gitignore").write_text("ml*\nmodels\n")
    commit(project, "init", "-q")
    log_run()
    run = whole_run("")
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    model = digest(project / "models/x")
    assert run.data.tags.items() >= {
        "mlflow.source.git.commit": head, "git_dirty": "false", "model_digest": model}.items()
    assert run.info.artifact_uri.startswith((project / "mlartifacts").as_uri())
    (project / "project.yaml").write_text("name: tiny\nmetric: {key: loss, goal: min}\n")
    run = log_run()
    assert run.client.get_run(run.id).data.tags["git_dirty"] == "true" and not said
    assert tracking.runs_of(run, ["x"]) == {"run.x": model}


def test_by_hand_an_exploration_and_in_a_sweep_the_trials_own_run(
        project, tmp_path, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "a stranger's, which is ignored")
    monkeypatch.delenv("NBPROOF_OUTPUT")
    log_run()
    assert len(runs_in("", "explore")) == 1 and (project / "scratch/models/x/MLmodel").exists()
    client = tracking.client(server)
    experiment = client.create_experiment("sweep", (tmp_path / "there").as_uri())
    trial = client.create_run(experiment, tags={"trial": "3"}).info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("NBPROOF_RUN_ID", trial)
    log_run()
    recorded, = runs_in(server, "sweep")
    assert recorded.info.status == "FINISHED" and recorded.data.metrics["accuracy"] == 0.2
    monkeypatch.setenv("NBPROOF_RUN_ID", "missing")
    with pytest.raises(mlflow.MlflowException, match="missing"):
        log_run()


def test_what_a_server_did_not_take_is_sent_later_once(project, server, monkeypatch, said, capsys):
    """It fails in the middle of one run and refuses another, which keeps no other back."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    store, there = tracking.database(server), tracking.client()
    deleted = there.create_experiment("deleted")
    there.delete_experiment(deleted)
    away = store.with_name("away")
    log_run(lambda: (store.rename(away), store.mkdir()))
    (sentence,) = said
    assert "is kept in mlflow.db, nbproof sync sends it. The results on disk are whole." in sentence
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "deleted")
    log_run()
    store.rmdir()
    away.rename(store)
    assert sync() == 1
    printed = capsys.readouterr()
    assert "Not sent: x (" in printed.err and "took 1 runs: x." in printed.out
    there.restore_experiment(deleted)
    assert sync() == 0 and whole_run(server) and whole_run(server, "deleted")
    assert sync() == 0 and "took 0 runs." in capsys.readouterr().out


def test_a_killed_process_leaves_no_running_run(project, server, monkeypatch, capsys):
    script = ("import os\nfrom nbproof.notebook import tracking\n"
              "tracking.start('x', {}).log(1, {'a': 1})\nos._exit(9)")
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"MLFLOW_TRACKING_URI": DEAD},
                   stderr=subprocess.DEVNULL, check=False)
    (killed,), local = runs_in(""), tracking.client("")
    mine = {"process": f"{socket.gethostname()}:{os.getpid()}"}
    for tags in (mine, {"process": "elsewhere:1", "notebook": "y"}, {}):
        local.create_run(killed.info.experiment_id, tags=tags)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert sync() == 0 and "took 2 runs: x, y." in capsys.readouterr().out
    assert [run.info.status for run in runs_in(server)] == ["KILLED"] * 2
    states = [run.info.status for run in runs_in(tracking.local_address())]
    assert states == ["KILLED", "RUNNING", "KILLED", "RUNNING"], \
        "this one, one at work, one of another machine, one that is no notebook's"


@pytest.mark.parametrize("end, status", [("pass", "FINISHED"), ("1 / 0", "FAILED")])
def test_a_run_that_nobody_finished_is_what_its_stage_was(single, inside, end, status):
    start = "from nbproof.notebook import tracking\nrun = tracking.start('x', {})"
    cells(single, WRITES, start, end)
    done = nbproof(single, "run", "--no-register")
    assert (done.returncode == 0) == (status == "FINISHED"), done.stdout
    inside(single)
    assert [run.info.status for run in runs_in("")] == [status]


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


@pytest.mark.parametrize("name", ["a%20b", "p a#b%20ü?x=1"])
def test_any_folder_name_has_its_store_inside(project, inside, name, monkeypatch, said):
    """MLflow unquotes the address of a store: without quotes, `a%20b` wrote into `a b`."""
    folder, neighbour = project.with_name(name), project.with_name("a b")
    (project / "mlflow.db").unlink()
    inside(project.rename(folder))
    neighbour.mkdir()
    monkeypatch.setenv("NBPROOF_OUTPUT", str(folder))
    log_run()
    whole_run("")
    assert not said and (folder / "mlflow.db").stat().st_size
    assert tracking.database(tracking.local_address()) == folder / "mlflow.db"
    assert {*folder.parent.iterdir()} >= {folder, neighbour} and not project.exists()
    assert not list(neighbour.iterdir())


def test_artifacts_follow_a_project_that_was_moved_or_copied(
        project, tmp_path, server, inside, monkeypatch, said, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    log_run()
    assert not [word for word in ("someone", "hun", "ter2") if word in said[0]]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    moved = project.rename(tmp_path / "moved to")
    copied = Path(shutil.copytree(moved, tmp_path / "copied"))
    inside(copied)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert sync() == 0
    whole_run(server)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for folder in (moved, copied):
        inside(folder)
        monkeypatch.setenv("NBPROOF_OUTPUT", str(folder))
        run = log_run()
        here = (folder / "mlartifacts").as_uri()
        assert tracking.client().get_run(run.id).info.artifact_uri.startswith(here)
        assert len(runs_in("", "tiny (moved, 1)")) == 1
    assert not project.exists(), "nothing is written where it was"


def altered(path: Path, statement: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(statement)
    return database


@pytest.mark.parametrize("damage, reason", [
    (lambda path: path.write_bytes(b"no database" * 1000), "file is not a database"),
    (lambda path: altered(path, "BEGIN EXCLUSIVE"), "database is locked"),
    (lambda path: altered(path, "UPDATE alembic_version SET version_num = '451aebb31d03'").close(),
     "out-of-date database schema"),
], ids=["damaged", "locked", "older"])
def test_a_store_that_cannot_be_used_is_one_sentence_and_costs_no_result(
        project, damage, reason, said):
    kept = damage(project / "mlflow.db")
    log_run()
    (sentence,) = said
    assert "mlflow.db did not take all of the run of x" in sentence and reason in sentence
    assert "mlflow db upgrade" in sentence and "[SQL" not in sentence and "\n" not in sentence
    assert (project / "models/x/MLmodel").exists() and (kept is None or kept)


@pytest.mark.parametrize("text, shown", [
    ("at http://u:p@ss@a and\n http://v:w@b:8", "at http://a and http://b:8"),
    ("https://example.org/@x a@b", "https://example.org/@x a@b"),
    ("(sqlite3.DatabaseError) malformed [SQL: SELECT x]", "(sqlite3.DatabaseError) malformed"),
])
def test_credentials_are_cut_out(text, shown):
    assert tracking.without_credentials(text) == shown
