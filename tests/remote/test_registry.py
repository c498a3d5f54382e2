"""Which model is the registered champion, on servers of two ages, without a registry, and without a server."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import servers
import small
from small import edit

from nbproof.pipeline import config
from nbproof.tracking import registry
from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest, root
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


def ask(said, factor: float) -> str:
    """The answer to 10, which must be by `factor`."""
    Path("asked.csv").write_text("x\n10\n")
    text = said(predict, [Path("asked.csv")])
    assert f"row,prediction\n1,{factor * 10}\n" in text
    return text


@pytest.mark.parametrize("server", ["mlflow3", "mlflow2"])
def test_the_alias_moves_for_what_is_better_or_named(server, request, here, monkeypatch, said):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue(server))
    edit(here / "project.yaml", "name: small", "name: alias")
    assert said(registry.promote) == "near is the registered champion now (version 1, data.source: table).\n"
    known = tracking.client()
    version = known.get_model_version_by_alias("alias", "champion")
    assert {"rmse", "test_rmse", "git_commit", "dvc_lock", "data_digest", "model_digest"} <= version.tags.keys()
    assert (version.tags["model"], version.tags["data"]) == ("near", "table")
    assert "near is the registered champion already (version 1)" in said(registry.promote)

    moved = "far is the registered champion now (version 2, data.source: table, before: version 1)"
    assert moved in said(registry.promote, "far")
    assert str(known.get_model_version_by_alias("alias", "previous").version) == "1"
    assert "near is the registered champion now (version 1" in said(registry.promote), "lower is better"
    assert len(known.search_model_versions("name = 'alias'")) == 2, "no second version of one model"

    edit(here / "params.yaml", "factor: 1.9", "factor: 1.8")
    small.run_without_dvc()
    stays = "The registered champion (near, version 1) stays: its rmse is 0.504975, now 1.00995. nbproof promote near"
    assert stays in said(registry.promote)
    edit(here / "params.yaml", "source: table", "source: other")
    edit(here / "params.yaml", "factor: 1.8", "factor: 1.99")
    small.run_without_dvc()
    assert "stays: it was judged on other data (table, now it is other)" in said(registry.promote)
    other = ", which knows data.source: table; params.yaml says other."
    assert f"Answered by the champion, version 1: near{other}" in ask(said, 1.9)


def test_the_hook_judges_the_answers_to_the_same_cases(here, said):
    """In the local store; without the hook the lower error would have moved the alias."""
    edit(here / "project.yaml", "data: data.source", "hooks: {better: judge:better}")
    said(registry.promote, "far")
    assert "near is the registered champion now (version 2, before: version 1)" in said(registry.promote)
    edit(here / "notebooks/judge.py", "wins > 6", "wins > 800")
    said(registry.promote, "far")
    assert "stays: it is nearer in 8 of 8 cases. nbproof promote near" in said(registry.promote)
    (here / "models/near.csv").unlink()
    assert "near is the registered champion now" in said(registry.promote), "without answers the metric decides"


def test_the_run_that_trained_the_model_holds_it_and_a_store_fails_no_run(here, said, monkeypatch):
    run = tracking.start("near", {"factor": 1.9})
    run.tag({"model_digest": digest(here / "models/near")})
    run.finish({"rmse": 0.5})
    assert "near is the registered champion now" in said(registry.promote_once)
    assert said(registry.promote_once) == ""
    assert "far is the registered champion now" in said(registry.promote, "far")
    assert said(registry.promote_once) == "", "what a person named stays until something is trained"
    known = tracking.client()
    versions = {each.tags["model"]: each.run_id for each in known.search_model_versions("name = 'small'")}
    runs = {name: known.get_run(run_id) for name, run_id in versions.items()}
    assert versions["near"] == run.id
    assert runs["far"].info.run_name == "far, stored" and runs["far"].info.status == "FINISHED"

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{servers.free_port()}")
    text = said(registry.promote_once)
    assert "was not changed" in text and "secret" not in text and len(text.splitlines()) == 1
    assert registry.promote() == 1
    text = ask(said, 1.9)
    assert "does not give the champion" in text and "Answered by the champion, models/near." in text
    assert "secret" not in text


def test_what_the_store_has_lost_comes_from_this_folder_again(here, said):
    edit(here / "project.yaml", "data: data.source", "hooks: {better: judge:better}")
    said(registry.promote, "far")
    shutil.rmtree(here / "mlartifacts")
    assert "Answered by the champion, models/far." in ask(said, 1.5), "the registered one, not the comparison's"
    assert "near is the registered champion now (version 2, before: version 1)" in said(registry.promote)
    shutil.rmtree(here / "mlartifacts")
    assert "near is the registered champion already (version 2)" in said(registry.promote)
    assert "Answered by the champion, version 2: near." in ask(said, 1.9)
    assert "far is the registered champion now (version 1" in said(registry.promote, "far")
    assert "Answered by the champion, version 1: far." in ask(said, 1.5)


def test_a_moved_project_promotes_and_asks_in_its_new_place(here, said, tmp_path, monkeypatch):
    assert "near is the registered champion now" in said(registry.promote)
    moved = here.rename(tmp_path / "moved to")
    monkeypatch.chdir(moved)
    root.cache_clear()
    assert "Answered by the champion, version 1: near." in ask(said, 1.9)
    assert "far is the registered champion now (version 2" in said(registry.promote, "far")
    assert "Answered by the champion, version 2: far." in ask(said, 1.5)
    assert not here.exists(), "nothing is written where it was"


def test_without_a_registry_tags_of_runs_say_it(mlflow3, here, said, monkeypatch):
    with servers.proxied(mlflow3) as proxy:
        proxy.trouble = "no registry"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        edit(here / "project.yaml", "name: small", "name: unregistered")
        assert "near is the registered champion now (run " in said(registry.promote)
        assert "near is the registered champion already (run " in said(registry.promote)
        assert "before: run " in said(registry.promote, "far")
        assert "near is the registered champion now (run " in said(registry.promote)
        assert "Answered by the champion, run " in ask(said, 1.9)


def test_what_cannot_be_registered_is_refused_in_a_sentence(here, said):
    with pytest.raises(UserError, match="There is no trained model 'nobody'; there are far, near."):
        registry.promote("nobody")
    (here / "metrics/far.json").write_text(json.dumps({"mae": 1}))
    with pytest.raises(UserError, match="metrics/far.json has no rmse"):
        registry.promote("far")
    edit(here / "models/near/MLmodel", "signature:", "other:")
    with pytest.raises(UserError, match="not an MLflow model with a signature"):
        registry.promote()
    assert "The champion was not registered: models/near" in said(registry.promote_once)
    edit(here / "project.yaml", "data.source", "data.nothing")
    config.load.cache_clear()
    with pytest.raises(UserError, match="data is data.nothing, which params.yaml does not have"):
        registry.data_in_use()
    (here / "metrics/compare.json").unlink()
    with pytest.raises(UserError, match="no comparison yet"):
        registry.promote()
    assert said(registry.promote_once) == ""
