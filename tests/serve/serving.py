"""A project to serve, without training: tiny ONNX models, registered in a store of its own."""

import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import requests

from nbproof.notebook.files import digest
from nbproof.serve import cli
from nbproof.workspace import bootstrap

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "0123456789abcdef"
ZERO = np.zeros((1, 1, 28, 28)).tolist()
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
    """A project in `root`; `register` makes its store, `start` serves it."""

    def __init__(self, root: Path, python: Path | None = None):
        self.root, self.client, self.servers = root, None, []
        python = python or environment_of_servers() / bootstrap.PYTHON
        self.command = [python, "-m", "nbproof", "serve"]
        self.variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        self.store = f"sqlite:///{root / 'mlflow.db'}"
        shutil.copytree(ROOT / "notebooks", root / "notebooks")
        (root / "project.yaml").write_text(PROJECT)
        (root / "params.yaml").write_text("{}\n")

    def put(self, file: Path, mlmodel: str = MLMODEL) -> "Served":
        """Make `file` the champion of this folder, as a run leaves it."""
        for name in ("models/net", "metrics"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, self.root / "models/net.onnx")
        (self.root / "models/net/MLmodel").write_text(mlmodel)
        (self.root / "metrics/compare.json").write_text('{"champion": "net"}')
        return self

    def register(self, file: Path | None, name: str = "net", alias: str = "champion",
                 mlmodel: str | None = MLMODEL, **tags) -> str:
        """Register `file` as a version, as `nbproof promote` does, and let `alias` name it."""
        import mlflow

        if self.client is None:
            place = None
            if self.store.startswith("sqlite:"):
                shutil.copy(empty_store(), self.root / "mlflow.db")
                place = (self.root / "mlartifacts").as_uri()
            self.client = mlflow.MlflowClient(self.store, self.store)
            self.experiment = self.client.create_experiment("drawn", place)
            self.client.create_registered_model("drawn")
        run = self.client.create_run(self.experiment).info
        if mlmodel is not None:
            self.client.log_text(run.run_id, mlmodel, "model/MLmodel")
        if file:
            copy = self.root / "scratch" / f"{name}.onnx"
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(file, copy)
            self.client.log_artifact(run.run_id, str(copy), "portable")
            tags = {"portable_digest": digest(file)} | tags
        version = self.client.create_model_version(
            "drawn", f"{run.artifact_uri}/model", run.run_id, {"model": name, **tags}).version
        self.move(alias, version)
        return str(version)

    def move(self, alias: str, version) -> None:
        self.client.set_registered_model_alias("drawn", alias, str(version))

    def start(self, *words: str, ready: bool = True, **variables: str) -> "Server":
        if "--port" not in words:
            words = ("--port", "0", *words)
        variables = self.variables | variables
        self.servers.append(Server([*self.command, *words], self.root, variables))
        if ready:
            self.servers[-1].listens()
        return self.servers[-1]


class Server:
    """A real server as a process."""

    def __init__(self, command: list, folder: Path, variables: dict):
        self.output, self.address = folder / f"output-{time.monotonic_ns()}.txt", ""
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file,
                                            env=variables)

    def listens(self, seconds: float = 60) -> None:
        """Wait until it prints its address."""
        pattern = r"is served at (http://\S+)"
        self.until(lambda: re.search(pattern, self.text()) or self.process.poll() is not None,
                   seconds)
        assert self.process.poll() is None, self.text()
        self.address = re.search(pattern, self.text())[1]

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def ask(self, path: str, content=None):
        """Return status and content (JSON where it is that) of a request."""
        method = "GET" if content is None else "POST"
        response = requests.request(method, self.address + path, json=content, timeout=30)
        is_json = "json" in response.headers.get("content-type", "")
        return response.status_code, response.json() if is_json else response.text

    def predicts(self) -> str:
        """Return the digit that the champion predicts now."""
        status, content = self.ask("/invocations", {"inputs": ZERO})
        assert status == 200, content
        return content["answers"][0]

    def until(self, met, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not met():
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def load(server: Server, clients: int = 4) -> Iterator[list[tuple]]:
    """Clients that send requests without a pause during the block; yield what comes: the version,
    the digit, its probability, or an error alone."""
    found, stop = [], threading.Event()

    def send() -> None:
        session = requests.Session()
        while not stop.is_set():
            try:
                response = session.post(f"{server.address}/invocations", json={"inputs": ZERO},
                                        timeout=30)
                response.raise_for_status()
                content = response.json()
                outputs = content["predictions"][0]  # also where the model abstains
                best = int(np.argmax(outputs))
                found.append((content["version"], str(best), round(outputs[best], 3)))
            except (OSError, ValueError) as error:  # of requests, too
                found.append((repr(error),))

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@functools.cache
def empty_store() -> Path:
    """Return an MLflow store with nothing in it, which takes MLflow many seconds to make."""
    import mlflow

    path = Path(tempfile.mkdtemp()) / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}", f"sqlite:///{path}").search_registered_models()
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment_of_servers() -> Path:
    """Return .venv-serve of this repository, filled where it is not."""
    return bootstrap.set_up(ROOT, cli.SMALL, cli.LOCKS[cli.SMALL])
