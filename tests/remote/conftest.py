"""The servers of tests/remote, each started once, and a small project in this process."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]
import servers  # noqa: E402
import small  # noqa: E402

from nbproof.notebook import tracking  # noqa: E402
from nbproof.notebook.files import root  # noqa: E402
from nbproof.pipeline import config  # noqa: E402

for name in (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_PROFILE",
):
    os.environ.pop(name, None)
# a person's own store of credentials must not help a test along
os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "NETRC": os.devnull}


@pytest.fixture(scope="session")
def mlflow3(tmp_path_factory) -> str:
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow3")) as address:
        yield address


@pytest.fixture(scope="session")
def mlflow2(tmp_path_factory) -> str:
    try:
        python = servers.old_mlflow()
    except OSError as error:
        pytest.skip(f"MLflow 2.22 could not be installed, so servers of that age were not tried: {error}")
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow2"), python) as address:
        yield address


@pytest.fixture(scope="session")
def bucket(tmp_path_factory) -> servers.Bucket:
    with servers.s3_store(tmp_path_factory.mktemp("s3")) as store:
        yield store


@pytest.fixture
def http_store(tmp_path):
    with servers.http_store(tmp_path / "store") as store:
        yield store


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The small project after its run."""
    folder, here = tmp_path_factory.mktemp("trained") / "project", Path.cwd()
    small.write_project(folder)
    os.chdir(folder)
    root.cache_clear()
    small.run_without_dvc()
    os.chdir(here)
    root.cache_clear()
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch) -> Path:
    """A copy of the small project after its run, which this process is in, with nothing left of another one."""
    shutil.copytree(trained, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        if name not in tracking.SETTINGS:
            monkeypatch.delenv(name)
    for name, value in {**small.ACCOUNT, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_TRACKING_URI": ""}.items():
        monkeypatch.setenv(name, value)
    for name in ("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, "")  # so that it is as it was after the test
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("judge", None)
    forget()
    yield tmp_path / "project"
    root.cache_clear()
    config.load.cache_clear()


def forget() -> None:
    root.cache_clear()
    config.load.cache_clear()
