"""The champion on servers of two ages: registered, moved, asked by a clone that has no model."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from small import edit

from nbproof.notebook import tracking
from nbproof.notebook.files import root
from nbproof.pipeline import config
from nbproof.tracking import registry
from nbproof.tracking.predict import predict


@pytest.fixture
def said(capsys):
    """What a call prints, whatever it returns."""
    def call(function, *arguments) -> str:
        config.load.cache_clear()
        sys.modules.pop("judge", None)
        capsys.readouterr()
        function(*arguments)
        return "".join(capsys.readouterr())

    return call


@pytest.mark.parametrize("server", ["mlflow3", "mlflow2"])
def test_the_alias_moves_and_the_champion_predicts(server, request, here, monkeypatch, said):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue(server))
    edit(here / "project.yaml", "name: small", "name: alias")
    assert "near is the registered champion now (version 1, data.source: table).\n" in \
        said(registry.promote)
    assert "near is the registered champion already (version 1)" in said(registry.promote)
    moved = "far is the registered champion now (version 2, data.source: table, before: version 1, "
    assert moved in said(registry.promote, "far")
    known = tracking.client()
    assert str(known.get_model_version_by_alias("alias", "previous").version) == "1"
    edit(here / "project.yaml", "data: data.source", "hooks: {better: judge:better}")
    assert "near is the registered champion now (version 1" in said(registry.promote)
    assert "far, version 2 is the registered champion again" in said(registry.rollback)
    assert len(known.search_model_versions("name = 'alias'")) == 2

    alone = here.with_name("alone")
    alone.mkdir()
    shutil.copy(here / "project.yaml", alone)
    os.chdir(alone)
    root.cache_clear()
    Path("asked.csv").write_text("x\n10\n")
    text = said(predict, [Path("asked.csv")])
    assert "row,prediction\n1,15.0\n" in text and "the champion, version 2: far" in text


def test_a_server_that_is_away_leaves_this_folders_model(here, monkeypatch, said):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "The registry at http://127.0.0.1:9 was not changed: " in said(registry.promote_once)
    Path("asked.csv").write_text("x\n10\n")
    assert "models/near of this folder is used instead" in said(predict, [Path("asked.csv")])
