"""What several tests of the review start from."""

import os

import pytest

from .results_world import World
from .tiny import Tiny


@pytest.fixture
def world(tmp_path, monkeypatch, inside):
    world = World(tmp_path, monkeypatch, inside)
    yield world
    world.api.shutdown()


@pytest.fixture
def tiny(tmp_path, monkeypatch, inside) -> Tiny:
    """The project of tiny.py; DVC records relative to the working directory."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    project = Tiny(tmp_path / "project")
    inside(project.root)
    return project
