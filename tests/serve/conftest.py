"""A project to serve, its application in this process, and servers that end with their test."""

import pytest
from portable_models import portable
from serving import Served
from starlette.testclient import TestClient

from nbproof.serve import app, log
from nbproof.serve.follow import Follower
from nbproof.serve.options import Options


@pytest.fixture
def served(tmp_path) -> Served:
    """A project in which nothing is registered yet; its servers end with the test."""
    project = Served(tmp_path / "project")
    yield project
    for server in project.servers:
        server.stop(9)


@pytest.fixture(scope="session")
def nets(tmp_path_factory) -> dict[int, object]:
    """ONNX files by the digit that they predict."""
    folder = tmp_path_factory.mktemp("nets")
    return {digit: portable(folder / f"{digit}.onnx", digit) for digit in (3, 7)}


@pytest.fixture
def started(inside):
    """`started(project, body=1, ...)` is a client of the project's application in this process."""
    opened = []

    def start(project: Served, **options) -> TestClient:
        inside(project.root)
        options, follower = Options(**options), Follower()
        follower.start()
        written = log.Log(project.root / log.LOG, options.log_size)
        made = app.create(follower, written, options)
        client = TestClient(made, base_url="http://localhost", raise_server_exceptions=False)
        client.follower, client.log = follower, written
        opened.append(client.__enter__())
        return client

    yield start
    for client in opened:
        client.__exit__()
        client.log.close()
