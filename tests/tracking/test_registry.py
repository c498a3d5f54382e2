"""Which model is the champion of the local store; tests/remote tries servers."""

import os
import pty
import subprocess
import sys

import pytest
from portable_models import portable
from projects import commit
from stores import train

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.pipeline import config
from nbproof.tracking import registry, versions


@pytest.fixture
def said(capsys):
    """What a call prints, which must return 0."""
    def call(function, *words, **options) -> str:
        config.load.cache_clear()
        capsys.readouterr()
        assert function(*words, **options) in (0, None)
        return "".join(capsys.readouterr())

    return call


def test_a_champion_is_registered_with_model_answers_and_onnx(trained, said):
    portable(trained / "models" / "near.onnx", 3)
    (trained / ".gitignore").write_text("ml*\n")
    commit(trained, "init", "-q")
    assert said(registry.promote) == \
        "near is the registered champion now (version 1, data.source: table).\n"
    champion = versions.current("champion")
    assert {"git_commit", "model_digest", "portable_digest"} <= champion.tags.keys()
    facts = {"model": "near", "data": "table", "rmse": "0.5", "git_dirty": "false"}
    assert facts.items() <= champion.tags.items()
    assert tracking.client().get_run(champion.run_id).info.run_name == "near, promoted"
    folder = tracking.artifacts(champion.run_id)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"answers/near.csv", "portable/near.onnx", "model/MLmodel"}
    assert "near is the registered champion already (version 1)" in said(registry.promote)
    portable(trained / "models" / "near.onnx", 3, limit=1.0)
    (trained / "params.yaml").write_text("data: {source: table} # changed\n")
    assert "champion now (version 2, data.source: table): " in said(registry.promote), \
        "another ONNX file is another version"
    assert versions.current("champion").tags["git_dirty"] == "true"


def test_the_aliases_move_for_what_is_better_or_named_and_back(trained, said):
    said(registry.promote)
    assert "far is the challenger now (version 2): it receives the same requests" in \
        said(registry.promote, "far", challenger=True)
    with pytest.raises(UserError, match="needs another model as the champion"):
        registry.promote("near", challenger=True)
    assert ": rmse 2.5 instead of 0.5 (near, version 1); nbproof rollback undoes it." in \
        said(registry.promote, "far"), "a person named it, though it is worse"
    assert "near, version 1 is the registered champion again (before: far, version 2)" in \
        said(registry.rollback)
    assert "far, version 2 is the registered champion again" in said(registry.rollback)
    assert "near is the registered champion now (version 1" in said(registry.promote), "lower"
    train(trained, near=1.5, far=2.5)
    assert "The registered champion (near, version 1) stays: near is worse: 0.5000 → 1.500" in \
        said(registry.promote)
    train(trained, near=0.25, far=2.5)
    (trained / "models" / "near.csv").unlink()
    (trained / "params.yaml").write_text("data: {source: other}\n")
    assert "stays: it was evaluated on other data (table, now other)." in said(registry.promote)


def test_the_hook_judges_the_answers_to_the_same_cases(trained, said):
    """Texts such as NA stay texts; without answers the metric decides."""
    contract = trained / "project.yaml"
    contract.write_text(contract.read_text() + "hooks: {better: judge:better}\n")
    said(registry.promote, "far")
    assert "near is the registered champion now (version 2" in said(registry.promote)
    said(registry.promote, "far")
    train(trained, near=1.5, far=2.5)
    assert "stays: it is newly right in 1 of 4 cases. nbproof promote near replaces it anyway." in \
        said(registry.promote)
    hook = trained / "notebooks/judge.py"
    hook.write_text(f"{hook.read_text()}    1 / 0\n".replace("    return", "    1 / 0\n    return"))
    train(trained, near=0.5, far=2.5)
    assert "stays: The project's hook better failed: ZeroDivisionError" in said(registry.promote)
    (trained / "models" / "near.csv").unlink()
    assert "near is the registered champion now" in said(registry.promote)


def test_a_project_without_a_metric_has_the_champion_that_a_person_names(trained, said):
    text = (trained / "project.yaml").read_text().replace("metric: {key: rmse, goal: min}\n", "")
    (trained / "project.yaml").write_text(text)
    assert "far is the registered champion now (version 1" in said(registry.promote, "far")
    assert "far, version 1) stays: No detectable change" in said(registry.promote)


@pytest.mark.parametrize("answer, champion", [("y", "far"), ("n", "near")])
def test_a_person_at_a_terminal_decides(trained, said, answer, champion, monkeypatch):
    said(registry.promote)
    terminal, other = pty.openpty()
    os.write(terminal, f"{answer}\n".encode())
    with os.fdopen(other) as keyboard:
        monkeypatch.setattr(sys, "stdin", keyboard)
        printed = said(registry.promote, "far")
    os.close(terminal)
    assert "far: rmse 2.5 instead of 0.5 (near, version 1). Is it to be the champion?" in printed
    assert versions.current("champion").model == champion


def test_a_run_asks_no_store_unless_the_comparison_changed(trained, said, monkeypatch):
    assert "near is the registered champion now" in said(registry.promote_once)
    said(registry.promote, "far")
    code = "import sys; from nbproof.tracking.registry import promote_once; promote_once()"
    done = subprocess.run([sys.executable, "-c", f"{code}; print('mlflow' in sys.modules)"],
                          capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", "what a person named stays, and MLflow is not imported"
    portable(trained / "models" / "near.onnx", 3)
    assert "near is the registered champion now" in said(registry.promote_once), "another file"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:secret@127.0.0.1:9")
    for _ in range(2):  # and it is tried again by the next run
        printed = said(registry.promote_once)
        assert "The registry at http://127.0.0.1:9 was not changed: " in printed
        assert "secret" not in printed


def test_a_metric_or_a_parameter_that_is_missing_is_one_sentence(trained, said):
    (trained / "metrics/near.json").write_text('{"mae": 1}')
    with pytest.raises(UserError, match="^'near' cannot be registered, because metrics/near.json"):
        registry.promote("near")
    (trained / "params.yaml").write_text("models: {}\n")
    with pytest.raises(UserError, match="^project.yaml: data is data.source, which params.yaml "):
        registry.promote("far")


def test_what_cannot_be_registered_is_refused_in_a_sentence(trained, said):
    (trained / "models/near/MLmodel").write_text("flavors: {}\n")
    for name in ("", "nobody"):
        with pytest.raises(UserError, match="needs models/n.*, an MLflow model with a signature"):
            registry.promote(name)
    assert "The champion was not registered: 'near' cannot" in said(registry.promote_once)
    with pytest.raises(UserError, match="no champion before this one"):
        registry.rollback()
    (trained / "metrics/compare.json").unlink()
    with pytest.raises(UserError, match="no comparison yet"):
        registry.promote()
    assert said(registry.promote_once) == ""
