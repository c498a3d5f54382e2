"""What several tests of the review start from."""

import os

import pytest

from .results_world import World, make
from .tiny import Tiny


@pytest.fixture
def quiet_git(monkeypatch):
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)


@pytest.fixture
def world(made_once, tmp_path, monkeypatch, inside, quiet_git):
    made = made_once("world", lambda folder: make(folder, inside))
    world = World(made, tmp_path / "world", monkeypatch, inside)
    yield world
    world.api.shutdown()


@pytest.fixture
def tiny(tmp_path, inside, quiet_git) -> Tiny:
    """The project of tiny.py; DVC records relative to the working directory."""
    project = Tiny(tmp_path / "project")
    inside(project.root)
    return project
