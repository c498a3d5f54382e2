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
    run = world.run("report", "push", {"before": world.git("rev-parse", "main")})
    assert run.job == "success", run.text
    assert world.artifacts(run) == ["report", "results", "review-RUN-1.html"]
    assert len(list((world.folder / "caches").iterdir())) == 1
    yield world
    world.api.shutdown()


@pytest.fixture
def world(started):
    started.api.comments.clear()
    started.fault, started.planted = None, 0
    return started
