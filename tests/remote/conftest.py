"""The servers of this folder, each started once, and accounts for them."""

import os

import pytest
import servers
from stores import empty, project, said, trained  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def account(monkeypatch):
    """Give this process the account of the MLflow servers, and keep a person's own out."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", servers.USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", servers.PASSWORD)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("AWS_EC2_METADATA_DISABLED", "true"), ("NETRC", os.devnull)):
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def mlflow3(tmp_path_factory) -> str:
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow3")) as server:
        yield server.address


@pytest.fixture(scope="session")
def mlflow2(tmp_path_factory) -> str:
    try:
        python = servers.old_mlflow()
    except OSError as error:
        pytest.skip(f"MLflow 2.22 cannot be installed, so its servers are not tried: {error}")
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow2"), python) as server:
        yield server.address


@pytest.fixture(scope="session")
def bucket(tmp_path_factory) -> servers.Bucket:
    with servers.s3_store(tmp_path_factory.mktemp("s3")) as store:
        yield store
