"""Which model is the champion of the local store; tests/remote tries servers."""

import subprocess
import sys
from pathlib import Path

import pytest
from portable_models import portable
from stores import train

from nbproof.notebook import served, tracking
from nbproof.notebook.errors import UserError
from nbproof.pipeline import config
from nbproof.tracking import registry


@pytest.fixture
def said(capsys):
    """What a call prints, which must return 0."""
    def call(function, *words, **options) -> str:
        config.load.cache_clear()
        sys.modules.pop("judge", None)
        capsys.readouterr()
        assert function(*words, **options) in (0, None)
        return "".join(capsys.readouterr())

    return call


def hook(folder: Path) -> None:
    """Give the project the hook `better`."""
    text = (folder / "project.yaml").read_text()
    (folder / "project.yaml").write_text(f"{text}hooks: {{better: judge:better}}\n")


def champion():
    return registry.version_of(tracking.client(), "champion")


def test_a_champion_is_registered_with_model_answers_and_onnx(trained, said, tmp_path):
    portable(trained / "models" / "near.onnx", 3)
    assert said(registry.promote) == \
        "near is the registered champion now (version 1, data.source: table).\n"
    tags = champion().tags
    assert {"git_commit", "dvc_lock", "data_digest", "model_digest", "portable_digest"} <= \
        tags.keys()
    assert (tags["model"], tags["data"], tags["rmse"]) == ("near", "table", "0.5")
    run = tracking.client().get_run(champion().run_id)
    assert run.info.run_name == "near, promoted" and run.info.status == "FINISHED"
    (tmp_path / "copy").mkdir()
    copy = tracking.client().download_artifacts(run.info.run_id, "", str(tmp_path / "copy"))
    folder = Path(copy)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
        "answers/near.csv", "portable/near.onnx"]
    assert (folder / "model" / "MLmodel").exists()
    assert "near is the registered champion already (version 1)" in said(registry.promote)
    portable(trained / "models" / "near.onnx", 3, limit=1.0)
    assert "champion now (version 2, data.source: table, before: version 1, " in \
        said(registry.promote), "another ONNX file is another version"


def test_the_alias_moves_for_what_is_better_or_named_and_back(trained, said):
    said(registry.promote)
    assert "before: version 1, rmse 0.5, now 2.5; nbproof rollback undoes it)." in \
        said(registry.promote, "far"), "a person named it, though it is worse"
    assert "near, version 1 is the registered champion again (before: far, version 2)" in \
        said(registry.rollback)
    assert "far, version 2 is the registered champion again" in said(registry.rollback)
    assert "near is the registered champion now (version 1" in said(registry.promote), "lower"
    assert len(tracking.client().search_model_versions("name = 'small'")) == 2
    train(trained, near=1.5, far=2.5)
    assert "The registered champion (near, version 1) stays: its rmse is 0.5, now 1.5. " \
        "nbproof promote near replaces it anyway." in said(registry.promote)
    train(trained, near=0.25, far=2.5, data="2")
    (trained / "models" / "near.csv").unlink()
    (trained / "params.yaml").write_text("data: {source: other}\n")
    assert "stays: it was judged on other data (table, now other)." in said(registry.promote)


def test_the_hook_judges_the_answers_to_the_same_cases(trained, said):
    """Texts such as NA stay texts; without answers the metric decides."""
    hook(trained)
    said(registry.promote, "far")
    assert "near is the registered champion now (version 2" in said(registry.promote)
    said(registry.promote, "far")
    train(trained, near=1.5, far=2.5)
    assert "stays: it is newly right in 1 of 4 cases. nbproof promote near" in \
        said(registry.promote)
    (trained / "models" / "near.csv").unlink()
    assert "near is the registered champion now" in said(registry.promote)


def test_a_run_asks_no_store_unless_the_comparison_changed(trained, said, monkeypatch):
    assert "near is the registered champion now" in said(registry.promote_once)
    said(registry.promote, "far")
    (trained / "dvc.lock").write_text((trained / "dvc.lock").read_text() + "\n")
    code = "import sys; from nbproof.tracking.registry import promote_once; promote_once()"
    done = subprocess.run([sys.executable, "-c", f"{code}; print('mlflow' in sys.modules)"],
                          capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", "what a person named stays, and MLflow is not imported"
    train(trained, near=0.25, far=2.5)
    assert "near is the registered champion now (version 3" in said(registry.promote_once)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:secret@127.0.0.1:9")
    for _ in range(2):  # and it is tried again by the next run
        printed = said(registry.promote_once)
        assert "The registry at http://127.0.0.1:9 was not changed: " in printed
        assert "secret" not in printed


def test_a_mistake_of_ours_is_no_sentence_about_the_store(trained, monkeypatch):
    monkeypatch.setattr(registry, "_registered", lambda *_: {}["model"])
    with pytest.raises(KeyError):
        registry.promote()


def test_a_challenger_and_evidence(trained, said, monkeypatch):
    log = {"label": ["7", None, "1"], "answer": ["1", "1", None],
           "shadow_answer": ["7", "7", "1"], "shadow_version": ["2", "2", "1"]}
    monkeypatch.setattr(served, "served", lambda version: log)
    with pytest.raises(UserError, match="needs another model as the champion"):
        registry.promote("far", challenger=True)
    said(registry.promote)
    assert "far is the challenger now (version 2): it receives the same requests" in \
        said(registry.promote, "far", challenger=True)
    assert champion().version == 1
    with pytest.raises(UserError, match="no evidence: that needs the hook `better`"):
        registry.promote("far", evidence=True)
    hook(trained)
    config.load.cache_clear()
    assert registry.promote("far", evidence=True) == 1 and champion().version == 1
    log |= {"label": [None] * 3}
    with pytest.raises(UserError, match="labels for answers of far as the challenger of near, v"):
        registry.promote("far", evidence=True)
    log |= {"label": ["7", None, "1"], "shadow_version": ["2", "2", "2"]}
    assert "far is the registered champion now" in said(registry.promote, "far", evidence=True)


def test_a_moved_project_promotes_in_its_new_place(trained, said, tmp_path, inside):
    hook(trained)
    said(registry.promote, "far")
    moved = inside(trained.rename(tmp_path / "moved to"))
    assert "near is the registered champion now (version 2" in said(registry.promote), \
        "the hook read the answers that came along"
    run = tracking.client().get_run(champion().run_id)
    assert run.info.artifact_uri.startswith((moved / "mlartifacts").as_uri())
    assert not trained.exists(), "nothing is written where it was"


def test_what_cannot_be_registered_is_refused_in_a_sentence(trained, said):
    with pytest.raises(UserError, match="'nobody' cannot be registered"):
        registry.promote("nobody")
    (trained / "models/near/MLmodel").write_text("flavors: {}\n")
    with pytest.raises(UserError, match="models/near, an MLflow model with a signature"):
        registry.promote()
    assert "The champion was not registered: 'near' cannot" in said(registry.promote_once)
    with pytest.raises(UserError, match="no champion before this one"):
        registry.rollback()
    (trained / "params.yaml").write_text("{}\n")
    with pytest.raises(UserError, match="data is data.source, which params.yaml does not have"):
        registry.data_in_use()
    (trained / "metrics/compare.json").unlink()
    with pytest.raises(UserError, match="no comparison yet"):
        registry.promote()
    assert said(registry.promote_once) == ""
