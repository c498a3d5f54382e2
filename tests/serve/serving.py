"""A project to serve, without training: tiny ONNX models that are made here, registered in a store of its own."""

import functools
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

from nbproof.notebook.files import digest
from nbproof.serve import environment
from nbproof.workspace import bootstrap

ROOT = Path(__file__).resolve().parents[2]
PROJECT = """\
name: drawn
metric: {key: validation_accuracy, goal: max}
compare: compare
serve: {page: notebooks/production/draw.html}
hooks: {prepare: production.preprocessing:prepare}
"""
MLMODEL = ("flavors: {python_function: {loader_module: nothing}}\nsignature: {inputs: '[]'}\n"
           "metadata: {mean: 0.13, deviation: 0.31, ink: bright, ink_side: 20}\n")


class Served:
    """A project in `root`, with a store; `start` serves it."""

    def __init__(self, root: Path, python: Path | None = None):
        self.root, self.client, self.runs, self.servers = root, None, {}, []
        self.python = python
        self.store = f"sqlite:///{root / 'mlflow.db'}"
        shutil.copytree(ROOT / "notebooks", root / "notebooks")
        (root / "project.yaml").write_text(PROJECT)
        (root / "params.yaml").write_text("{}\n")
        kept = ("PATH", "HOME", "LANG", "TMPDIR")
        self.variables = {name: os.environ[name] for name in kept if name in os.environ}
        self.variables |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def register(self, file: Path | None, name: str = "net", alias: str = "champion", *, pickled: bytes = b"",
                 **tags) -> str:
        """Register what is in `file` as a version, as `nbproof promote` does, and let `alias` name it."""
        import mlflow

        os.environ |= {"MLFLOW_LOGGING_LEVEL": "ERROR", "MLFLOW_DISABLE_TELEMETRY": "true"}
        if self.client is None:
            place = None
            if self.store.startswith("sqlite:"):
                shutil.copy(_empty_store(), self.root / "mlflow.db")
                place = (self.root / "mlartifacts").as_uri()
            self.client = mlflow.MlflowClient(self.store, self.store)
            self.experiment = self.client.create_experiment("drawn", place)
            self.client.create_registered_model("drawn")
        run = self.client.create_run(self.experiment).info.run_id
        model = self.root / "scratch" / "model"
        shutil.rmtree(model, ignore_errors=True)
        model.mkdir(parents=True)
        (model / "MLmodel").write_text(MLMODEL)
        if pickled:
            (model / "model.pkl").write_bytes(pickled)
        self.client.log_artifacts(run, str(model), "model")
        if file:
            shutil.copy(file, model.parent / f"{name}.onnx")
            self.client.log_artifact(run, str(model.parent / f"{name}.onnx"), "portable")
            tags = {"portable_digest": digest(file)} | tags
        place = f"{self.client.get_run(run).info.artifact_uri}/model"
        version = self.client.create_model_version("drawn", place, run, {"model": name, **tags}).version
        self.runs[str(version)] = run
        self.move(alias, version)
        return str(version)

    def move(self, alias: str, version) -> None:
        self.client.set_registered_model_alias("drawn", alias, str(version))

    def file_of(self, version: str, name: str = "net") -> Path:
        """Where the store keeps the ONNX file of a version."""
        return next((self.root / "mlartifacts").glob(f"{self.runs[version]}/artifacts/portable/{name}.onnx"))

    @staticmethod
    def attached(process: subprocess.Popen, said: Path) -> "Server":
        """A server that was started in another way, whose words are in the file `said`."""
        server = Server.__new__(Server)
        server.process, server.said, server.address = process, said, ""
        return server

    def start(self, *words: str, ready: bool = True, **variables: str) -> "Server":
        self.servers.append(Server(self, words, variables, self.python))
        if ready:
            self.servers[-1].listens()
        return self.servers[-1]


class Server:
    """A real server as a process."""

    def __init__(self, served: Served, words: tuple, variables: dict, python: Path | None = None):
        python = python or environment_of_servers() / bootstrap.PYTHON
        self.said = served.root / f"said-{time.monotonic_ns()}.txt"
        with self.said.open("wb") as file:
            self.process = subprocess.Popen(
                [python, "-m", "nbproof", "serve", "--port", "0", *words], cwd=served.root, stdout=file,
                stderr=file, env=served.variables | variables)
        self.address = ""

    def listens(self) -> None:
        """Wait until it says where."""
        self.address = self.wait_for(r"is served at (http://\S+)").group(1)

    def text(self) -> str:
        return self.said.read_text(errors="replace")

    def wait_for(self, pattern: str, seconds: float = 60):
        ends = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text())):
            ended = self.process.poll() is not None and not re.search(pattern, self.text())
            assert time.monotonic() < ends and not ended, self.text()
            time.sleep(0.02)
        return found

    def ask(self, path: str, content=None, *, kind: str = "application/json", method: str = "", **headers: str):
        """The status and the answer (JSON where it is that) of a request."""
        body = json.dumps(content).encode() if content is not None and not isinstance(content, bytes) else content
        headers = ({"Content-Type": kind} if body is not None else {}) | {
            name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.address + path, body, headers, method=method or None)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, said, self.headers = answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            status, said, self.headers = error.code, error.read(), error.headers
        return status, json.loads(said) if "json" in (self.headers.get("Content-Type") or "") else said

    def says(self) -> str:
        """The digit that the champion says now."""
        status, answer = self.ask("/invocations", {"inputs": ZERO})
        assert status == 200, answer
        return answer["answers"][0]

    def until(self, met, seconds: float = 30) -> None:
        ends = time.monotonic() + seconds
        while not met():
            assert time.monotonic() < ends, self.text()
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=30)


class Load:
    """Clients that ask without a pause, and remember every answer."""

    def __init__(self, server: "Server", clients: int = 4):
        self.server, self.seen, self.wrong, self.slowest, self.ends = server, set(), [], 0.0, threading.Event()
        self.count = 0
        self.threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        for thread in self.threads:
            thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self.server.address.removeprefix("http://"), timeout=30)
        body = json.dumps({"inputs": ZERO})
        while not self.ends.is_set():
            began = time.monotonic()
            try:
                connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                said = json.loads(answer.read())
                if answer.status != 200:
                    self.wrong.append(said)
                else:
                    answer = said["answers"][0]
                    self.seen.add((said["version"], answer, round(said["predictions"][0][int(answer)], 3)))
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.wrong.append(repr(error))
                connection.close()
            self.count += 1
            self.slowest = max(self.slowest, time.monotonic() - began)


@functools.cache
def _empty_store() -> Path:
    """An MLflow store with nothing in it, which takes MLflow many seconds to make."""
    import mlflow

    path = Path(tempfile.mkdtemp()) / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}", f"sqlite:///{path}").search_registered_models()
    return path


ZERO = np.zeros((1, 1, 28, 28)).tolist()


def environment_of_servers() -> Path:
    """.venv-serve of this repository, filled where it is not."""
    return bootstrap.set_up(ROOT, environment.SMALL, environment.LOCKS[environment.SMALL])
