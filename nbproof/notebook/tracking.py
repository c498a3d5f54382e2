"""MLflow runs: the local store, how a notebook logs a run, and how a server gets a copy of it.

Every run is logged to mlflow.db and mlartifacts/ at the project's root. Where there is a tracking
server, a thread copies the run there while the notebook works; a run that the server did not take
whole keeps the tag `unsent`, and `nbproof sync` sends it. What varies from run to run (seconds,
ids, the commit) belongs here and in no output.
"""

import atexit
import contextlib
import logging
import numbers
import os
import queue
import re
import socket
import sqlite3
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import CONTRACT, digest, from_yaml, output, root, source
from nbproof.notebook.progress import say

PATIENCE = 20  # seconds that a notebook waits at its end for the server
UNSENT = "unsent"  # the tag of a local run that the server has not taken whole
MOVED = " (moved, "  # in the name of an experiment whose artifacts are not in this project
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "ERROR", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # else a model's requirements depend on the folder
}
for name, value in SETTINGS.items():  # MLflow reads them when a notebook imports it
    os.environ.setdefault(name, value)


def address() -> str:
    """Return the tracking store: MLFLOW_TRACKING_URI, `tracking` in remote.yaml, or mlflow.db."""
    server = os.environ.get("MLFLOW_TRACKING_URI") or _yaml("remote.yaml").get("tracking")
    return server or local_address()


def local_address() -> str:
    """Return the address of mlflow.db at the project's root."""
    path = (root() / "mlflow.db").as_posix()
    # SQLAlchemy unquotes the path. MLflow does not, and makes the folder of the quoted one: where
    # the slashes are quoted, too, that is the current folder.
    return "sqlite:///" + (quote(path, safe="") if {"%", "?"} & set(path) else path)


def database(store: str) -> Path:
    """Return the file of a store sqlite:///PATH."""
    return Path(unquote(store.removeprefix("sqlite:///").partition("?")[0]))


def settle() -> None:
    """Let MLflow load a pickle only if the project says so."""
    trusted = str(_yaml(CONTRACT).get("pickle") is True).lower()
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", trusted)


def client(store: str = ""):
    """Return an MLflow client of `store`, or of `address()`; it gives a server up after 20 s.

    Raises UserError, with the cure, where the database of a store cannot be used.
    """
    settle()
    import mlflow

    store = store or address()
    if not store.startswith("sqlite:"):
        return mlflow.MlflowClient(store, store)
    path = database(store)
    try:
        # A new database is made beside: one that a kill leaves half-made could never be opened.
        with _lock(store):
            if not path.exists() or path.is_file() and not path.stat().st_size:
                Path(f"{path}.new").unlink(missing_ok=True)
                mlflow.MlflowClient(f"{store}.new").delete_experiment("0")  # "Default", unused
                os.replace(f"{path}.new", path)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA schema_version")  # MLflow would try for minutes
        return mlflow.MlflowClient(store, store)
    except (sqlite3.Error, mlflow.MlflowException, OSError) as error:
        raise UserError(
            f"{path.name} cannot be used ({without_credentials(str(error))}): end the program that "
            f"locks it; of an older MLflow, `mlflow db upgrade sqlite:///{path.name}` mends it; a "
            "damaged one move away, and the next command makes a new one.") from None


def _lock(store: str):
    """Return the lock of what processes must not do at once in `store`; they race in MLflow."""
    from filelock import FileLock

    kind = "local" if store == local_address() else "server"
    return FileLock(root() / f"mlflow.db.{kind}.lock", timeout=120)


def without_credentials(text: str, length: int = 300) -> str:
    """Return `text` on one line, without SQL and without user and password in any address."""
    text = re.sub(r"://[^/\s]*@", "://", text.partition("[SQL: ")[0])
    return " ".join(text.split())[:length]


def commit() -> str:
    """Return the commit that the project stands on, `unknown` where there is none."""
    return git("rev-parse", "--verify", "HEAD").strip() or "unknown"


def changes() -> str:
    """Return the difference of the tracked sources, which results are not, to the commit."""
    results = [f":(exclude){name}" for name in ("dvc.lock", "data", "metrics", "models", "reports")]
    return git("diff", "--no-ext-diff", "--no-textconv", "HEAD", "--", ".", *results)


def git(*words: str) -> str:
    """Return what git prints in the project; empty where it fails or is not installed."""
    with contextlib.suppress(FileNotFoundError):  # without git, all is as outside of a repository
        return subprocess.run(["git", *words], cwd=root(), capture_output=True, encoding="utf-8",
                              errors="replace").stdout
    return ""


def process() -> str:
    """Return this process as the tag `process` of runs names it: HOST:PID."""
    return f"{socket.gethostname()}:{os.getpid()}"


def close_dead_runs(client) -> None:
    """Mark as KILLED the runs that are RUNNING and whose process is not on this machine."""
    import psutil

    for run in runs(client, "attributes.status = 'RUNNING' and tags.process != ''"):
        host, _, pid = run.data.tags["process"].partition(":")
        if host != socket.gethostname() or not psutil.pid_exists(int(pid)):
            client.set_terminated(run.info.run_id, "KILLED")


def runs(client, query: str) -> list:
    """Return the runs of all experiments for which `query` holds, the oldest first."""
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(ids, query, max_results=50_000, order_by=["start_time ASC"])


def experiment(client, name: str = "") -> str:
    """Return the id of the experiment `name`, made where it is missing.

    Default: MLFLOW_EXPERIMENT_NAME, else the project's name in a stage and `explore` by hand.
    """
    ours = _yaml(CONTRACT).get("name") if os.environ.get("NBPROOF_OUTPUT") else "explore"
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or ours
    store, here = client.tracking_uri, f"{root().as_uri()}/mlartifacts"
    with _lock(store):
        known = client.get_experiment_by_name(name)
        if known and store == local_address() and not known.artifact_location.startswith(here):
            # The project was moved or copied, and an experiment keeps its location.
            client.rename_experiment(known.experiment_id, f"{name}{MOVED}{known.experiment_id})")
        elif known:
            return known.experiment_id
        # Without a location, a store that is no server puts artifacts into the working folder.
        # By the tag, MLflow's page opens for trainings.
        return client.create_experiment(name, here if store.startswith("sqlite:") else None,
                                        {"mlflow.experimentKind": "custom_model_development"})


def artifacts(run) -> str:
    """Return the address of a run's artifacts, also where the project was moved since."""
    recorded = run.info.artifact_uri
    here = root() / "mlartifacts" / recorded.rpartition("/mlartifacts/")[2]
    return here.as_uri() if recorded.startswith("file:") and here.is_dir() else recorded


def copy_run(local, run_id: str, server, live_rows: Iterable = ()) -> None:
    """Copy a run whole from the client `local` to `server`, once, and delete its tag UNSENT.

    `live_rows` yields the metrics of a run that still works, until it ends.
    """
    from mlflow.entities import RunTag

    run = local.get_run(run_id)
    name = local.get_experiment(run.info.experiment_id).name.partition(MOVED)[0]
    ours, key = experiment(server, name), run.data.tags["key"]
    for copy in server.search_runs([ours], f"tags.key = '{key}'"):
        if copy.info.status != "RUNNING":  # it is whole
            local.delete_tag(run_id, UNSENT)
            return
        server.delete_run(copy.info.run_id)
    copy = server.create_run(ours, run.info.start_time, {"key": key}, run.info.run_name).info.run_id
    _log_inputs(server, copy, run.data.params, run.inputs.dataset_inputs)
    histories = (local.get_metric_history(run_id, metric) for metric in run.data.metrics)
    for rows in live_rows or histories:
        server.log_batch(copy, rows)
    run = local.get_run(run_id)
    tags = [RunTag(*tag) for tag in run.data.tags.items() if tag[0] != UNSENT]
    server.log_batch(copy, tags=tags)
    folder = Path(url2pathname(urlsplit(artifacts(run)).path))
    if folder.is_dir():
        server.log_artifacts(copy, str(folder))
    # Only now: a copy with another status than RUNNING is whole.
    server.set_terminated(copy, run.info.status, run.info.end_time)
    local.delete_tag(run_id, UNSENT)


def _log_inputs(client, run_id: str, parameters: dict, datasets: list) -> None:
    from mlflow.entities import Param

    params = [Param(key, str(value)) for key, value in parameters.items()]
    client.log_batch(run_id, params=params)
    if datasets:
        with _lock(client.tracking_uri):
            client.log_inputs(run_id, datasets=datasets)


class Run:
    """The MLflow run of the notebook `name`; `data` is the name and the digest of its data.

    A store that fails is reported once and costs no result. The run of a sweep's trial exists
    (NBPROOF_RUN_ID): it is logged to its own store, whose errors are raised.
    """

    def __init__(self, name: str, parameters: dict, data: tuple[str, str] | None = None,
                 tags: dict[str, str] | None = None):
        self.name, self.began, self.store = name, time.monotonic(), address()
        self.id = self.trial = os.environ.get("NBPROOF_RUN_ID", "")
        self.client, self.failure, self.stepped = None, "", set()
        self.rows, self.mirror = queue.SimpleQueue(), None
        self.mirror_failure = f"no answer within {PATIENCE} s"  # until the mirror knows better
        self._write(lambda: self._open(parameters, data, tags or {}))
        atexit.register(self._end, "FAILED")
        if self.id and not self.trial and self.store != local_address():
            self.mirror = threading.Thread(target=self._copy_live, daemon=True)
            self.mirror.start()

    def _open(self, parameters: dict, data: tuple[str, str] | None, tags: dict) -> None:
        from mlflow.entities import Dataset, DatasetInput

        self.client = client(self.store if self.trial else local_address())
        if not self.trial:
            close_dead_runs(self.client)
            changed = changes()
            tags = tags | {
                "notebook": self.name, "process": process(), "key": uuid.uuid4().hex,
                "mlflow.source.name": f"notebooks/{self.name}.ipynb",
                "mlflow.source.type": "NOTEBOOK", "mlflow.source.git.commit": commit(),
                "git_dirty": str(bool(changed)).lower(),
            }
            if self.store != local_address():
                tags[UNSENT] = without_credentials(self.store)
            ours = experiment(self.client)
            self.id = self.client.create_run(ours, tags=tags, run_name=self.name).info.run_id
            if changed:
                self.client.log_text(self.id, changed, "source.diff")
        datasets = [DatasetInput(Dataset(data[0], data[1][:32], "dvc", data[0]))] if data else []
        _log_inputs(self.client, self.id, parameters, datasets)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Log the metrics of one step, such as an epoch."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        self.stepped |= metrics.keys()
        self._write(lambda: self.client.log_batch(self.id, rows))
        self.rows.put(rows)

    def figure(self, name: str, figure) -> None:
        """Log a Matplotlib figure as figures/NAME.png."""
        self._write(lambda: self.client.log_figure(self.id, figure, f"figures/{name}.png"))

    def tag(self, tags: dict[str, str]) -> None:
        """Log facts about the run, by name."""
        self._write(lambda: [self.client.set_tag(self.id, *tag) for tag in tags.items()])

    def model(self, name: str) -> None:
        """Log the model that the notebook wrote as the output models/NAME."""
        folder = output(f"models/{name}")
        self.tag({"model_digest": digest(folder)})
        self._write(lambda: self.client.log_artifacts(self.id, str(folder), "model"))

    def finish(self, metrics: dict[str, float]) -> None:
        """Log the numbers that no step had, and the seconds since the start, and end the run."""
        new = {key: value for key, value in metrics.items()
               if isinstance(value, numbers.Real) and key not in self.stepped}
        self.log(0, new | {"seconds": time.monotonic() - self.began})
        self._end("FINISHED")

    def _write(self, call: Callable[[], object]) -> None:
        """Run `call`; after a failure, do nothing."""
        from mlflow.exceptions import MlflowException

        try:
            if not self.failure:
                call()
        except (MlflowException, OSError, UserError) as error:
            if self.trial:
                raise
            self.failure = without_credentials(str(error)).rstrip(".")
            say(message=f"mlflow.db did not take all of the run of {self.name}: {self.failure}. "
                        "The results on disk are whole.")

    def _end(self, status: str) -> None:
        atexit.unregister(self._end)
        self._write(lambda: self.client.set_terminated(self.id, status))
        self.rows.put(None)
        if self.mirror:
            self.mirror.join(PATIENCE)
        if self.mirror and self.mirror_failure:
            say(message=f"MLflow at {without_credentials(self.store)} did not take all of the run "
                        f"of {self.name} ({self.mirror_failure}): it is kept in mlflow.db, "
                        "nbproof sync sends it. The results on disk are whole.")

    def _copy_live(self) -> None:
        """Copy the run to the server; in a thread, until the run ends or the server fails."""
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # its words would be a cell's output
        try:
            rows = iter(self.rows.get, None)
            copy_run(client(local_address()), self.id, client(self.store), rows)
            self.mirror_failure = ""
        except Exception as error:  # of any library below MLflow's client; _end reports it
            self.mirror_failure = without_credentials(str(error), 200)


start = Run  # how a notebook calls it: tracking.start("NAME", ...)


def runs_of(_: Run, names: list[str]) -> dict[str, str]:
    """Return the tags run.NAME: the `model_digest` that the runs of models/NAME have."""
    return {f"run.{name}": digest(source(f"models/{name}")) for name in names}


def _yaml(name: str) -> dict:
    path = root() / name
    return from_yaml(path.read_text(encoding="utf-8")) or {} if path.exists() else {}
