"""A cluster on loopback whose nodes have the environment of servers on Ray, and a project there."""

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("serve", "sweep")]
from cluster import Cluster, cluster  # noqa: E402
from portable_models import portable  # noqa: E402
from serving import ROOT, Served  # noqa: E402

from nbproof.serve import cli  # noqa: E402
from nbproof.workspace import bootstrap  # noqa: E402


@pytest.fixture(scope="session")
def python() -> Path:
    """The Python of .venv-serve-ray of this repository, which is filled where it is not."""
    venv = bootstrap.set_up(ROOT, cli.RAY, cli.LOCKS[cli.RAY])
    return venv / bootstrap.PYTHON


@pytest.fixture(scope="module")
def nodes(python) -> Cluster:
    """A head without processors for models, and two nodes that have two each."""
    with cluster(3, cpus=2, head_cpus=0, python=python) as made:
        made.variables["PYTHONPATH"] += f"{os.pathsep}{ROOT}"  # of the command, not of the nodes
        yield made


@pytest.fixture(scope="module")
def served(tmp_path_factory, python) -> Served:
    """A project whose champion, version 1, predicts 7, and whose version 2 predicts 3."""
    folder = tmp_path_factory.mktemp("served")
    project = Served(folder / "project", python)
    for digit in (7, 3):
        project.register(portable(folder / f"{digit}.onnx", digit))
    project.move("champion", 1)
    yield project
    for server in project.servers:
        server.stop()
