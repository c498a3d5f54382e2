"""The environment of all tests, and finished projects to copy; tests/projects.py makes them."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from projects import NOT_COPIED, ONE_STAGE, ROOT, WRITES, cells, commit, nbproof, project, tiny

from nbproof.notebook import files
from nbproof.pipeline import config
from nbproof.runner import determinism

sys.modules.setdefault("rfc3987_syntax", None)  # as in nbproof.cli
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
for name in list(os.environ):  # what a person has set is not what is tested
    if name.startswith(("NBPROOF_", "DVC_", "MLFLOW_", "MNIST_")) or name == "CI":
        del os.environ[name]
os.environ |= determinism.SETTINGS  # before any of the tests imports a library that computes
# Nothing leaves the machine.
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DVC_NO_ANALYTICS": "1"}


@pytest.fixture
def inside(monkeypatch) -> Iterator[Callable[[Path], Path]]:
    """`inside(folder)` lets this process work in a project, as commands do by their folder."""
    def enter(folder: Path) -> Path:
        monkeypatch.chdir(folder)
        for known in (files.root, config.load):
            known.cache_clear()
        return folder

    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("TRACKING_URI", "REGISTRY_URI", "ALLOW_PICKLE_DESERIALIZATION"):
        monkeypatch.setenv(f"MLFLOW_{name}", "")  # MLflow sets it: it is gone again after the test
        monkeypatch.delenv(f"MLFLOW_{name}")
    yield enter
    for known in (files.root, config.load):
        known.cache_clear()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`made_once(name, make)` returns a folder that `make(folder)` fills, once for all workers."""
    top = tmp_path_factory.getbasetemp()
    shared = (top.parent if "PYTEST_XDIST_WORKER" in os.environ else top) / "shared"
    shared.mkdir(exist_ok=True)

    def once(name: str, make: Callable[[Path], object]) -> Path:
        whole = shared / f"{name}.whole"
        with FileLock(shared / f"{name}.lock"):
            if not whole.exists():
                make(shared / name)
                whole.touch()
        return shared / name

    return once


@pytest.fixture(scope="session")
def finished_once(made_once) -> tuple[Path, str]:
    """The tiny project, run and committed, and what the run printed; nobody changes it."""
    def make(folder: Path) -> None:
        done = nbproof(tiny(folder / "project"), "run", "--jobs", "2")
        assert done.returncode == 0, done.stdout
        commit(folder / "project")
        (folder / "output.txt").write_text(done.stdout, encoding="utf-8")

    folder = made_once("finished", make)
    return folder / "project", (folder / "output.txt").read_text(encoding="utf-8")


@pytest.fixture
def finished(finished_once, tmp_path) -> Path:
    """A copy of the finished tiny project, with its cache, to change at will."""
    return shutil.copytree(finished_once[0], tmp_path / "copy", ignore=NOT_COPIED)


@pytest.fixture(scope="session")
def single_once(made_once) -> Path:
    """A project of the one notebook `x`; nobody changes it."""
    def make(folder: Path) -> None:
        cells(folder, WRITES)
        project(folder, params_yaml="models:\n  x: {n: 1}\n", dvc_yaml=ONE_STAGE)

    return made_once("single", make)


@pytest.fixture
def single(single_once, tmp_path) -> Path:
    """A copy of the project of one notebook; nothing is run yet."""
    return shutil.copytree(single_once, tmp_path / "single", ignore=NOT_COPIED)
