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


@contextlib.contextmanager
def mlflow_server(folder: Path, python: str = sys.executable) -> Iterator[str]:
    """The address of an MLflow server with the account USER, in the environment of `python`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
    try:
        while not _is_up(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def _is_up(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
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
