"""The servers of tests/remote, each started once."""

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]
import servers  # noqa: E402

for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
    os.environ.pop(name, None)
# a person's own store of credentials must not help a test along
os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "NETRC": os.devnull}
ACCOUNT = {"MLFLOW_TRACKING_USERNAME": servers.USER, "MLFLOW_TRACKING_PASSWORD": servers.PASSWORD}


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
