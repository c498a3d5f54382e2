"""The servers of this folder, each started once, and accounts for them."""

import json
import os
from types import SimpleNamespace

import boto3
import pytest
import requests
import servers
from moto.server import ThreadedMotoServer
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
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow3")) as address:
        yield address


@pytest.fixture(scope="session")
def mlflow2(tmp_path_factory) -> str:
    try:
        python = servers.old_mlflow()
    except OSError as error:
        pytest.skip(f"MLflow 2.22 cannot be installed, so its servers are not tried: {error}")
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow2"), python) as address:
        yield address


@pytest.fixture(scope="session")
def bucket() -> SimpleNamespace:
    """Moto's S3 store with a bucket `dvc`; once its one user is made, it checks every signature."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    options = {"endpoint_url": address, "region_name": "us-east-1",
               "aws_access_key_id": "setup", "aws_secret_access_key": "setup"}
    iam = boto3.client("iam", **options)
    boto3.client("s3", **options).create_bucket(Bucket="dvc")
    iam.create_user(UserName="dvc")
    allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="dvc", PolicyName="all", PolicyDocument=policy)
    key = iam.create_access_key(UserName="dvc")["AccessKey"]
    requests.post(f"{address}/moto-api/reset-auth", data=b"0").raise_for_status()
    yield SimpleNamespace(endpoint=address, credentials={
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]})
    server.stop()
