"""The registry on a real MLflow server with accounts: followed, lost and found again."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "remote"))
from servers import PASSWORD, USER, free_port, mlflow_server  # noqa: E402 - of the tests of remotes


@pytest.fixture
def account(monkeypatch) -> dict[str, str]:
    given = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


def test_a_server_is_followed_lost_and_found_again(served, nets, account, tmp_path):
    port = free_port()
    with mlflow_server(tmp_path / "mlflow", port=port) as address:
        served.store = address
        served.register(nets[7])
        server = served.start(MLFLOW_TRACKING_URI=address, **account)
        assert server.says() == "7"
        served.register(nets[3])
        server.until(lambda: server.says() == "3", 60)
        served.register(nets[7], "other", "challenger")
        server.until(lambda: (server.ask("/version")[1]["shadow"] or {}).get("model") == "other", 60)
        served.register(None)
        server.until(lambda: "without an ONNX file" in server.text(), 60)
        assert server.says() == "3"
    server.wait_for("The registry does not answer", 30)
    assert server.says() == "3" and PASSWORD not in server.text()
    with mlflow_server(tmp_path / "mlflow", port=port):
        served.move("champion", 1)
        server.until(lambda: server.says() == "7", 30)
        assert server.ask("/version")[1]["registry"] == "ok"
        wrong = served.start(ready=False, MLFLOW_TRACKING_URI=address, MLFLOW_TRACKING_USERNAME=USER,
                             MLFLOW_TRACKING_PASSWORD="wrong")
        assert wrong.process.wait(60) == 2 and "There is nothing to serve" in wrong.text() and "401" in wrong.text()
