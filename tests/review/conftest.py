"""What several tests of the review start from."""

import pytest

from .results_world import World


@pytest.fixture
def world(tmp_path, monkeypatch, inside):
    world = World(tmp_path, monkeypatch, inside)
    yield world
    world.api.shutdown()
