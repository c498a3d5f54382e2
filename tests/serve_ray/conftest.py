"""A cluster on loopback whose nodes have the environment of servers on Ray, and a project that is served there."""

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("serve", "sweep")]
from cluster import Cluster, cluster  # noqa: E402
from portable_models import portable  # noqa: E402
from serving import ROOT, Served  # noqa: E402

from nbproof.serve import environment  # noqa: E402
from nbproof.workspace import bootstrap  # noqa: E402


@pytest.fixture(scope="session")
def python() -> Path:
    """The Python of .venv-serve-ray of this repository, which is filled where it is not."""
    return bootstrap.set_up(ROOT, environment.RAY, environment.LOCKS[environment.RAY]) / bootstrap.PYTHON


@pytest.fixture(scope="session")
def nodes(python) -> Cluster:
    """A head without processors for models, and two nodes that have two each."""
    with cluster(3, cpus=2, head_cpus=0, python=python) as made:
        made.variables["PYTHONPATH"] += f"{os.pathsep}{ROOT}"
        yield made


@pytest.fixture(scope="session")
def nets(tmp_path_factory) -> dict[int, Path]:
    """ONNX files by the digit that they say."""
    folder = tmp_path_factory.mktemp("nets")
    return {digit: portable(folder / f"{digit}.onnx", digit) for digit in (3, 7)}


@pytest.fixture
def served(tmp_path, python) -> Served:
    """A project with a store in which nothing is registered yet; its servers end with the test."""
    project = Served(tmp_path / "project", python)
    yield project
    for server in project.servers:
        server.stop()
