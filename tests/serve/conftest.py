"""A project to serve with two models, and servers that end with their test."""

import pytest
from portable_models import portable
from serving import Served


@pytest.fixture
def served(tmp_path) -> Served:
    """A project with a store in which nothing is registered yet; its servers end with the test."""
    project = Served(tmp_path / "project")
    yield project
    for server in project.servers:
        server.stop(9)


@pytest.fixture(scope="session")
def nets(tmp_path_factory) -> dict[int, object]:
    """ONNX files by the digit that they say."""
    folder = tmp_path_factory.mktemp("nets")
    return {digit: portable(folder / f"{digit}.onnx", digit) for digit in (3, 7)}
