"""The example's science importable, and a project of the test's own around it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "notebooks"))


@pytest.fixture(autouse=True)
def project(tmp_path_factory, monkeypatch) -> Path:
    """An empty project: what is written below it as an output is found again as a source."""
    from nbproof.notebook import files

    folder = tmp_path_factory.mktemp("project")
    (folder / "project.yaml").write_text("name: test\nmetric: {key: validation_accuracy, goal: max}\n")
    (folder / "params.yaml").write_text("compare: {confidence: 0.95}\nmodels: {x: {}}\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NBPROOF_OUTPUT", str(folder))
    files.root.cache_clear()
    yield folder
    files.root.cache_clear()


@pytest.fixture
def events(monkeypatch) -> list[dict]:
    """The events that the code under test sends from now on."""
    from nbproof.notebook import errors, progress

    sent: list[dict] = []
    for module in (errors, progress):
        monkeypatch.setattr(module, "say", lambda **event: sent.append(event))
    return sent
