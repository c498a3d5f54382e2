"""A run and a real server; tests/notebook/test_tracking.py has servers that fail."""

import pytest
from stores import log_run, runs_in, whole_run

from nbproof.notebook import tracking


@pytest.mark.parametrize("server", ["mlflow3", "mlflow2"])
def test_a_server_has_each_step_at_once_and_all_at_the_end(
        server, request, project, said, monkeypatch, capsys):
    address = request.getfixturevalue(server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)

    def look() -> None:
        (run,) = runs_in(address)
        assert run.data.metrics["accuracy"] == 0.1 and run.info.status == "RUNNING"

    log_run(look)
    assert said == [] and tracking.sync() == 0 and "took 0 runs" in capsys.readouterr().out
    whole_run(address)
