"""Real servers on loopback: MLflow with accounts (3.x and 2.x), an S3 store that checks keys, an HTTP store for DVC,
and a proxy that fails on demand.
"""

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USER, PASSWORD = "founder", "planted-mlflow-password"
OLD = ROOT / ".venv-mlflow2"
OLD_PINS = Path(__file__).with_name("requirements-mlflow2.txt")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(
    command: list[str], folder: Path, environment: dict[str, str], answers: str, within: float = 120
) -> Iterator[subprocess.Popen]:
    """`command` until the block ends, once the address `answers` gives any answer; its words are in folder/log."""
    with (folder / "log").open("w") as log:
        started = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        ends = time.monotonic() + within
        while True:
            try:
                urllib.request.urlopen(answers, timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                assert started.poll() is None and time.monotonic() < ends, (folder / "log").read_text()
                time.sleep(0.2)
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, 15)
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, 9)
            started.wait()


@contextlib.contextmanager
def mlflow_server(folder: Path, python: str = sys.executable, port: int = 0) -> Iterator[str]:
    """The address of an MLflow server with the account USER; `python` is that of the environment with its MLflow."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = {USER}\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 600\n"
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHONPATH"))
    } | {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "only for this test",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [
        python,
        "-m",
        "mlflow",
        "server",
        "--app-name",
        "basic-auth",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{folder}/store.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    with process(command, folder, environment, f"http://127.0.0.1:{port}/health"):
        yield f"http://127.0.0.1:{port}"


def old_mlflow() -> str:
    """The Python of an environment with MLflow 2.22, made once; OSError if the registry does not give it."""
    python, stamp = OLD / "bin" / "python", OLD / "stamp"
    digest = hashlib.sha256(OLD_PINS.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        subprocess.run([sys.executable, "-m", "venv", str(OLD)], check=True)
        done = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "-r", str(OLD_PINS)], capture_output=True, text=True
        )
        if done.returncode:
            raise OSError(done.stderr[-300:])
        stamp.write_text(digest)
    return str(python)


@dataclass
class Bucket:
    """An S3 store: its address, a bucket, and the keys of its one user."""

    endpoint: str
    name: str
    key: str
    secret: str

    @property
    def credentials(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}


@contextlib.contextmanager
def s3_store(folder: Path, signed: bool = True) -> Iterator[Bucket]:
    """Moto's S3 server; once bucket and user are made, it checks every signature, unless its address is rewritten."""
    import boto3

    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with process(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        folder,
        dict(os.environ),
        f"{address}/moto-api/",
    ):
        options = {
            "endpoint_url": address,
            "aws_access_key_id": "setup",
            "aws_secret_access_key": "setup",
            "region_name": "us-east-1",
        }
        iam = boto3.client("iam", **options)
        boto3.client("s3", **options).create_bucket(Bucket="dvc")
        iam.create_user(UserName=USER)
        allowed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        iam.put_user_policy(UserName=USER, PolicyName="all", PolicyDocument=json.dumps(allowed))
        made = iam.create_access_key(UserName=USER)["AccessKey"]
        plain = {"Content-Type": "text/plain"}
        if signed:
            urllib.request.urlopen(
                urllib.request.Request(f"{address}/moto-api/reset-auth", data=b"0", headers=plain, method="POST")
            ).close()
        yield Bucket(address, "dvc", made["AccessKeyId"], made["SecretAccessKey"])


class Stored(http.server.BaseHTTPRequestHandler):
    """Files under server.folder for who has server.password; server.trouble: full, read-only, cut, slow.

    server.requests: each request's line and headers.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def _answer(self, code: int, body: bytes = b"", length: int | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if code == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="dvc"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _allowed(self) -> bool:
        self.server.requests.append((self.requestline, dict(self.headers)))
        if self.server.trouble == "slow":
            time.sleep(1)
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        right = base64.b64encode(f"{USER}:{self.server.password}".encode()).decode()
        if given != right:
            self._answer(401)
        return given == right

    def do_GET(self) -> None:
        path = self.server.folder / self.path.lstrip("/")
        if not self._allowed():
            return
        if not path.is_file():
            self._answer(404)
            return
        content = path.read_bytes()
        if self.server.trouble == "cut" and self.command == "GET" and len(content) > self.server.cut_after:
            self._answer(200, content[: self.server.cut_after], len(content))
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self._answer(200, content, len(content))

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self._body()
        if body is None or not self._allowed():
            return
        if self.server.trouble in ("full", "read-only"):
            self._answer({"full": 507, "read-only": 405}[self.server.trouble])
            return
        path = self.server.folder / self.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".part")
        beside.write_bytes(body)
        os.replace(beside, path)
        self._answer(201)

    do_PUT = do_POST

    def _body(self) -> bytes | None:
        """The whole body, or None where the connection was cut on purpose."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
                if self.server.trouble == "cut" and sum(map(len, parts)) > self.server.cut_after:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return None
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))


@contextlib.contextmanager
def served(handler, **settings) -> Iterator[http.server.ThreadingHTTPServer]:
    """A threaded server of `handler` with `settings` as attributes."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    vars(server).update(settings)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def http_store(folder: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    """A DVC remote over HTTP with basic auth, at `.address`; `.trouble` (full, read-only, cut, slow) makes it fail."""
    folder.mkdir(parents=True, exist_ok=True)
    with served(
        Stored, folder=folder, password="planted-http-password", trouble="", cut_after=1000, requests=[]
    ) as server:
        server.address = f"http://127.0.0.1:{server.server_port}"
        yield server


@dataclass
class Proxy:
    """In front of a server: fails as `trouble` says (refuse, hang, slow, expired) once `after` requests
    went through, and keeps every request.
    """

    target: str
    trouble: str = ""
    after: int = 0
    requests: list[tuple[str, dict, bytes]] = field(default_factory=list)
    address: str = ""
    routes: dict[str, str] = field(
        default_factory=dict
    )  # instead of target, by the beginning of the path, which is cut off


class Passed(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def _pass_on(self) -> None:
        proxy: Proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        proxy.requests.append((f"{self.command} {self.path}", dict(self.headers), body))
        troubled = proxy.trouble and len(proxy.requests) > proxy.after
        if troubled and proxy.trouble == "refuse":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if troubled and proxy.trouble == "hang":
            time.sleep(60)
            self.close_connection = True
            return
        if troubled and proxy.trouble == "slow":
            time.sleep(1)
        if troubled and proxy.trouble == "expired":
            answer = b"You are not authenticated."
            self.send_response(401)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            return
        prefix = next((each for each in proxy.routes if self.path.startswith(each)), "")
        host, path = proxy.routes.get(prefix, proxy.target).removeprefix("http://"), self.path[len(prefix) :] or "/"
        there = http.client.HTTPConnection(host, timeout=60)
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("transfer-encoding", "content-length", "connection")
        }
        there.request(self.command, path, body, headers | {"Content-Length": str(len(body))})
        with there.getresponse() as answer:
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        there.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass_on


@contextlib.contextmanager
def proxied(target: str) -> Iterator[Proxy]:
    proxy = Proxy(target)
    with served(Passed, proxy=proxy) as server:
        proxy.address = f"http://127.0.0.1:{server.server_port}"
        yield proxy
