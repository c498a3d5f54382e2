"""Real servers on loopback: MLflow with accounts (3.x and 2.x), and an S3 store that checks keys."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USER, PASSWORD = "founder", "planted-mlflow-password"
OLD = ("mlflow[auth]==2.22.5", "sqlalchemy<2.1")
AUTH = """\
[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/auth.db
admin_username = {user}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 600
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Server:
    """A program and its address; `folder` has what it stores, and its words in the file log."""

    address: str
    folder: Path
    process: subprocess.Popen

    def stop(self, number: int = signal.SIGTERM) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        self.process.wait(20)


@contextlib.contextmanager
def started(command: list[str], folder: Path, port: int, health: str,
            **variables: str) -> Iterator[Server]:
    """`command` until the block ends, once its path `health` gives any answer."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | variables, stdout=log,
                                   stderr=log, start_new_session=True)
    server, ends = Server(f"http://127.0.0.1:{port}", folder, process), time.monotonic() + 300
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{server.address}/{health}", timeout=5).close()
                break
            assert process.poll() is None and time.monotonic() < ends, \
                (folder / "log").read_text()
            time.sleep(0.2)
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def mlflow_server(folder: Path, python: str = sys.executable, port: int = 0) -> Iterator[Server]:
    """An MLflow server with the account USER; `python` is that of the environment it is in."""
    port = port or free_port()
    (folder / "auth.ini").write_text(AUTH.format(folder=folder, user=USER, password=PASSWORD))
    command = [python, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1",
               "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder}/store.db",
               "--artifacts-destination", str(folder / "artifacts")]
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    with started(command, folder, port, "health", PATH=path, MLFLOW_TRACKING_URI="",
                 MLFLOW_AUTH_CONFIG_PATH=str(folder / "auth.ini"),
                 MLFLOW_FLASK_SERVER_SECRET_KEY="only for this test",
                 MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false") as server:
        yield server


def old_mlflow() -> str:
    """The Python of an environment with MLflow 2.22; OSError where it cannot be had."""
    environment = ROOT / ".venv-mlflow2"
    for words in (["venv", "--allow-existing", environment],
                  ["pip", "install", "--python", environment, *OLD]):
        done = subprocess.run([sys.executable, "-m", "uv", "--quiet", *words], text=True,
                              stderr=subprocess.PIPE)
        if done.returncode:
            raise OSError(done.stderr[-300:])
    return str(environment / "bin" / "python")


@dataclass
class Bucket:
    """An S3 store: its address, the bucket `dvc`, and the keys of its one user."""

    endpoint: str
    credentials: dict[str, str]


@contextlib.contextmanager
def s3_store(folder: Path) -> Iterator[Bucket]:
    """Moto's S3 server; once bucket and user are made, it checks every signature."""
    import boto3

    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with started(command, folder, port, "moto-api/") as server:
        options = {"endpoint_url": server.address, "aws_access_key_id": "setup",
                   "aws_secret_access_key": "setup", "region_name": "us-east-1"}
        iam = boto3.client("iam", **options)
        boto3.client("s3", **options).create_bucket(Bucket="dvc")
        iam.create_user(UserName=USER)
        allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName=USER, PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName=USER)["AccessKey"]
        urllib.request.urlopen(urllib.request.Request(
            f"{server.address}/moto-api/reset-auth", data=b"0", method="POST",
            headers={"Content-Type": "text/plain"})).close()
        yield Bucket(server.address, {"AWS_ACCESS_KEY_ID": key["AccessKeyId"],
                                      "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]})
