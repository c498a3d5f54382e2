"""Addresses are checked before anything is written, and errors of libraries become sentences."""

from pathlib import Path

import pytest
from projects import project

from nbproof.notebook.errors import UserError
from nbproof.tracking import remotes


@pytest.fixture
def here(tmp_path, inside) -> Path:
    return inside(project(tmp_path / "project", dvc_yaml="stages: {}\n"))


@pytest.mark.parametrize("options, sentence", [
    ({"url": "https://me:token@dagshub.com/me/repo"}, "carries a user or password"),
    ({"server": "example.org"}, "must begin with http:// or https://"),
    ({"server": "http://u:p@example.org"}, "carries a user or password"),
])
def test_what_is_no_address_is_refused_and_nothing_written(here, options, sentence):
    before = (here / ".dvc/config").read_bytes()
    with pytest.raises(UserError, match=sentence) as refused:
        remotes.use(**({"url": "", "server": "", "data": "", "endpoint": ""} | options))
    assert "token" not in str(refused.value)
    assert (here / ".dvc/config").read_bytes() == before and not (here / "remote.yaml").exists()


def test_a_folder_is_a_remote_and_another_remote_stays(here, tmp_path, capsys):
    (tmp_path / "store").mkdir()
    config = here / ".dvc" / "config"
    before = f"{config.read_text()}['remote \"backup\"']\n    url = /backup\n"
    config.write_text(before)
    assert remotes.use("", "", str(tmp_path / "store"), "") == 0
    assert "DVC remote responds." in capsys.readouterr().out
    assert "url = /backup" in config.read_text() and "remote = origin" in config.read_text()
    assert remotes.transfer("push") == remotes.transfer("pull") == 0
    config.write_text(before)
    assert remotes.check() == 0 and "No remote is set" in capsys.readouterr().out
    assert remotes.transfer("push") != 0


def test_a_tracking_server_that_is_away_is_named(here, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert remotes.use("", "http://127.0.0.1:9", "", "") == 1
    printed = capsys.readouterr().out
    assert "Tracking server http://127.0.0.1:9 gives no usable response (" in printed
    assert (here / "remote.yaml").read_text().endswith('\ntracking: "http://127.0.0.1:9"\n')
