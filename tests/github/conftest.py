"""One repository on the GitHub of this machine, for all of its tests."""

import shutil
import sys
from pathlib import Path

import pytest
from world import World


@pytest.fixture(scope="session")
def started(tmp_path_factory):
    """The repository after main's first run."""
    act = shutil.which("act", path=str(Path(sys.executable).parent))
    if not act or not shutil.which("node"):
        pytest.skip("act (requirements/dev.txt) or node is not installed")
    world = World(tmp_path_factory.mktemp("world"), act)
    yield world
    world.close()


@pytest.fixture
def world(started):
    started.comments, started.pulls, started.mutation = [], [], None
    started.checks = [{"name": "test (ubuntu-latest)", "conclusion": "success"}]
    return started
