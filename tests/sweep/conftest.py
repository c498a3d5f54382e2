"""A tiny project for sweeps."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "remote")]
pytest.importorskip("ray", reason="ray is not installed: sweeps were not tried")
import tiny  # noqa: E402

from nbproof.notebook import files  # noqa: E402
from nbproof.pipeline import config as contract  # noqa: E402


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> tiny.Project:
    """The project that is copied for each test."""
    return tiny.make(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture
def project(made, tmp_path) -> tiny.Project:
    """The project, with its data, not yet run."""
    return tiny.Project(Path(shutil.copytree(made.root, tmp_path / "project")))


@pytest.fixture
def here(project, monkeypatch) -> tiny.Project:
    """The project as the one in which this process runs."""
    monkeypatch.chdir(project.root)
    files.root.cache_clear()
    contract.load.cache_clear()
    yield project
    files.root.cache_clear()
    contract.load.cache_clear()
