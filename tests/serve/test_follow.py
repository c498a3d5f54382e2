"""The registry is followed: what is right is swapped in, what is not is refused and named."""

import sys
from pathlib import Path

import pytest
from portable_models import portable

from nbproof.serve.follow import Follower

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "remote"))
from servers import PASSWORD, USER, mlflow_server  # noqa: E402 - of the tests of remotes


@pytest.fixture
def follower(served, nets, inside) -> Follower:
    """It has loaded the champion, version 1, which predicts 7."""
    served.register(nets[7])
    inside(served.root)
    made = Follower()
    made.look()
    assert str(made.pair.champion) == "net, version 1" and made.problem == ""
    return made


def test_what_is_not_right_is_refused_and_the_old_model_stays(follower, served, nets, tmp_path):
    no_model = tmp_path / "text.onnx"
    no_model.write_bytes(b"no model")
    wrong = portable(tmp_path / "wrong.onnx", 3, right=False)
    for file, options, reason in (
        (nets[3], {"portable_digest": "0"}, "is damaged"), (wrong, {}, "differs by 0.8"),
        (no_model, {}, "cannot be loaded"),
        (None, {}, "has no file net.onnx"), (nets[3], {"mlmodel": None}, "has no file MLmodel"),
        (nets[3], {"model": "../../etc/passwd"}, "has no file .onnx"),
        (nets[3], {"mlmodel": "[1, 2"}, "cannot be loaded"),
    ):
        version = served.register(file, **options)
        follower.look()
        refused = follower.refused["champion"]
        assert f"version {version}" in refused and reason in refused, refused
        assert str(follower.pair.champion) == "net, version 1"
    served.register(nets[3])
    follower.look()
    assert str(follower.pair.champion) == "net, version 9" and follower.refused == {}
    served.register(nets[3], alias="challenger")
    follower.look()
    assert str(follower.pair.challenger) == "net, version 10"
    served.register(portable(tmp_path / "wrong.onnx", 3, right=False), alias="challenger")
    follower.look()
    assert follower.pair.challenger is None and "challenger" in follower.refused
    served.client.delete_registered_model_alias("drawn", "challenger")
    follower.look()
    assert follower.refused == {}


def test_a_registry_that_is_broken_changes_nothing(follower, served, nets):
    store, away = served.root / "mlflow.db", served.root / "away"
    store.rename(away)
    store.write_bytes(b"no database" * 1000)
    follower.look()
    assert "cannot be followed" in follower.problem and follower.pair.champion
    away.replace(store)
    follower.look()
    assert follower.problem == ""


def test_a_server_with_accounts_and_its_errors(served, nets, inside, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    inside(served.root)
    follower = Follower()
    with mlflow_server(tmp_path) as served.store:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", served.store)
        follower.look()
        assert "names no champion" in follower.problem
        served.register(nets[7])
        mlmodel = next(tmp_path.rglob("MLmodel"))
        text = mlmodel.read_text()
        mlmodel.unlink()
        mlmodel.symlink_to("nowhere")  # the server fails on it
        follower.look()
        assert follower.pair.champion is None and "500" in follower.problem
        mlmodel.unlink()
        mlmodel.write_text(text)
        follower.look()
        assert follower.pair.champion.metadata["mean"] == 0.13 and follower.problem == ""
        served.register(None)
        follower.look()
        assert "has no file net.onnx" in follower.refused["champion"]
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
        follower.look()
        assert "401" in follower.problem
    follower.look()
    assert "cannot be followed" in follower.problem and PASSWORD not in follower.problem
    assert str(follower.pair.champion) == "net, version 1"
