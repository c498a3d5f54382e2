"""Real MLflow servers on loopback with accounts, 3.x and 2.x."""

import contextlib
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
    """A program in a session of its own, and its address."""

    address: str
    process: subprocess.Popen

    def stop(self, number: int = signal.SIGTERM) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        self.process.wait(20)


@contextlib.contextmanager
def mlflow_server(folder: Path, python: str = sys.executable, port: int = 0) -> Iterator[Server]:
    """An MLflow server with the account USER; `python` is that of the environment it is in."""
    port = port or free_port()
    (folder / "auth.ini").write_text(AUTH.format(folder=folder, user=USER, password=PASSWORD))
    command = [python, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1",
               "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder}/store.db",
               "--artifacts-destination", str(folder / "artifacts")]
    variables = os.environ | {
        "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": "", "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "only for this test",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log,
                                   start_new_session=True)
    server = Server(f"http://127.0.0.1:{port}", process)
    try:
        while not _is_up(server.address):
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield server
    finally:
        server.stop()


def _is_up(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
        return True
    return False


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
