"""A run and its server: whatever the server does, nothing is lost, and sync brings the rest."""

import os
import signal
import time

import pytest
import servers
from stores import log_run, runs_in, whole_run

from nbproof.notebook import tracking


@pytest.fixture
def name(project, monkeypatch, request) -> str:
    """The name of an experiment that no other test of the server has."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{request.node.name} {time.time()}")
    return os.environ["MLFLOW_EXPERIMENT_NAME"]


@pytest.mark.parametrize("server", ["mlflow3", "mlflow2"])
def test_a_server_has_each_step_at_once_and_all_at_the_end(
        server, request, name, said, monkeypatch, capsys):
    address = request.getfixturevalue(server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)

    def look() -> None:
        (run,) = runs_in(address, name)
        assert run.data.metrics["accuracy"] == 0.1 and run.info.status == "RUNNING"

    log_run(look)
    assert said == [] and tracking.sync() == 0 and "took 0 runs" in capsys.readouterr().out
    whole_run(address, name)


def test_what_a_server_did_not_take_is_sent_later_once(name, said, tmp_path, monkeypatch, capsys):
    """Killed in between, with an expired account, or refusing one run: it keeps no other back."""
    (tmp_path / "server").mkdir()
    with servers.mlflow_server(tmp_path / "server") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        deleted = tracking.client().create_experiment("deleted")
        tracking.client().delete_experiment(deleted)
        log_run(lambda: server.stop(signal.SIGKILL))
    (sentence,) = said
    assert "is kept in mlflow.db, nbproof sync sends it." in sentence
    assert servers.PASSWORD not in sentence
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "deleted")
    log_run()
    assert tracking.sync() == 1 and "Not sent: x (" in capsys.readouterr().err
    port = int(server.address.rpartition(":")[2])
    with servers.mlflow_server(tmp_path / "server", port=port) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "expired")
        assert tracking.sync() == 1 and "401" in capsys.readouterr().err
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", servers.PASSWORD)
        assert tracking.sync() == 1
        printed = capsys.readouterr()
        assert "Not sent: x (" in printed.err and "took 1 runs: x." in printed.out
        first = whole_run(server.address, name).info.run_id
        tracking.client().restore_experiment(deleted)
        assert tracking.sync() == 0 and whole_run(server.address, "deleted")
        assert whole_run(server.address, name).info.run_id == first
