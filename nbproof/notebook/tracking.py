"""MLflow runs: the local store, how a notebook logs a run, and how a server gets a copy of it.

Every run is logged to mlflow.db and mlartifacts/ at the project's root. Where there is a tracking
server, the run is copied there every few seconds, and `nbproof sync` sends what it lacks. What
varies from run to run (times, ids, the commit) belongs here and in no output.
"""

import atexit
import contextlib
import logging
import math
import numbers
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from nbproof.notebook.errors import UserError, trace
from nbproof.notebook.files import CONTRACT, digest, output, root, source
from nbproof.notebook.params import read
from nbproof.notebook.progress import say

EVERY = 5  # seconds, at least, between two copies of a run at work
REMOTE = "remote.yaml"  # written by nbproof remote
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
    recorded = read(REMOTE).get("tracking") if (root() / REMOTE).exists() else ""
    return os.environ.get("MLFLOW_TRACKING_URI") or recorded or local_address()


def local_address() -> str:
    """Return the address of mlflow.db at the project's root."""
    path = (root() / "mlflow.db").as_posix()
    # SQLAlchemy unquotes the path. MLflow does not, and makes the folder of the quoted one: where
    # the slashes are quoted, too, that is the current folder.
    return "sqlite:///" + (quote(path, safe="") if {"%", "?"} & set(path) else path)


def database(store: str) -> Path:
    """Return the file of a store sqlite:///PATH."""
    return Path(unquote(store.removeprefix("sqlite:///").partition("?")[0]))


def client(store: str = ""):
    """Return an MLflow client of `store`, or of `address()`; it gives a server up after 20 s.

    Raises UserError, with the cure, where the database of a store cannot be used.
    """
    import mlflow
    from filelock import FileLock

    store = store or address()
    if not store.startswith("sqlite:"):
        return mlflow.MlflowClient(store, store)
    path = database(store)
    try:
        # A new database is made beside: one that a kill leaves half-made could never be opened.
        # Two processes would race in MLflow's first migration.
        with FileLock(f"{path}.lock", timeout=120):
            if not path.exists() or not path.stat().st_size:
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


def artifacts(run_id: str) -> Path:
    """Return the folder of a local run's files, also where the project was moved."""
    return root() / "mlartifacts" / run_id / "artifacts"


@contextlib.contextmanager
def refused(sentence: str) -> Iterator[None]:
    """Raise UserError where MLflow, the network or the disk fails in the block: `sentence`, with
    the {store} and the {reason} in their places."""
    from mlflow.exceptions import MlflowException

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it prints what it raises, too
    try:
        yield
    except (MlflowException, OSError) as error:
        trace()
        store, reason = map(without_credentials, (address(), str(error)))
        raise UserError(sentence.format(store=store, reason=reason)) from None


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


def git(*words: str, folder: Path | None = None) -> str:
    """Return what git prints in the project; empty where it fails or is not installed."""
    with contextlib.suppress(FileNotFoundError):  # without git, all is as outside of a repository
        return subprocess.run(["git", "-c", "core.quotePath=false", *words], cwd=folder or root(),
                              capture_output=True, encoding="utf-8", errors="replace").stdout
    return ""


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
    from filelock import FileLock

    ours = read(CONTRACT)["name"] if os.environ.get("NBPROOF_OUTPUT") else "explore"
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or ours
    store, here = client.tracking_uri, f"{root().as_uri()}/mlartifacts"
    with FileLock(root() / "mlflow.db.lock"):  # stages at the same time would each make it
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


def copy_run(local, run_id: str, server) -> None:
    """Bring the copy of a local run on the client `server` up to date; one that ended is whole."""
    from mlflow.entities import Param, RunTag

    run = local.get_run(run_id)
    name = local.get_experiment(run.info.experiment_id).name.partition(MOVED)[0]
    there, info, origin = experiment(server, name), run.info, {"origin": run_id}
    copies = server.search_runs([there], f"tags.origin = '{run_id}'") or \
        [server.create_run(there, info.start_time, origin, info.run_name)]
    copy_id = copies[0].info.run_id
    for metric in run.data.metrics:
        # A 2.x server refuses a NaN that it has already.
        sent = {(row.step, row.timestamp) for row in server.get_metric_history(copy_id, metric)}
        rows = [row for row in local.get_metric_history(run_id, metric)
                if (row.step, row.timestamp) not in sent]
        server.log_batch(copy_id, rows)
    server.log_batch(copy_id, params=[Param(*param) for param in run.data.params.items()],
                     tags=[RunTag(*tag) for tag in run.data.tags.items()])
    if info.status != "RUNNING":
        if artifacts(run_id).is_dir():
            server.log_artifacts(copy_id, str(artifacts(run_id)))
        server.set_terminated(copy_id, info.status, info.end_time)


class Run:
    """The MLflow run of the notebook `name`; `data` is the name and the digest of its data.

    A store that fails is reported once and costs no result. The run of a sweep's trial exists
    (NBPROOF_RUN_ID): it is logged to its own store, whose errors are raised.
    """

    def __init__(self, name: str, parameters: dict, data: tuple[str, str] | None = None,
                 tags: dict[str, str] | None = None):
        self.name, store = name, address()
        self.id = self.trial = os.environ.get("NBPROOF_RUN_ID", "")
        self.server = "" if self.trial or store == local_address() else store
        self.client, self.failed, self.next_copy = None, False, 0.0
        self.step, self.last = 0, {}  # the last step, and the last value of each metric
        tags = (tags or {}) | dict(zip(("data", "data_digest"), data or ()))
        self._write(lambda: self._open(store, parameters, tags))
        atexit.register(self._end)

    def _open(self, store: str, parameters: dict, tags: dict) -> None:
        from mlflow.entities import Param

        self.client = client(store if self.trial else local_address())
        if not self.trial:
            close_dead_runs(self.client)
            tags |= {"notebook": self.name, "process": f"{socket.gethostname()}:{os.getpid()}",
                     "mlflow.source.name": f"notebooks/{self.name}.ipynb",
                     "mlflow.source.type": "NOTEBOOK", "mlflow.source.git.commit": commit(),
                     "git_dirty": str(bool(changes())).lower()}
            ours = experiment(self.client)
            self.id = self.client.create_run(ours, tags=tags, run_name=self.name).info.run_id
        params = [Param(key, str(value)) for key, value in parameters.items()]
        self.client.log_batch(self.id, params=params)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Log the metrics of one step, such as an epoch; what is infinite becomes a tag."""
        from mlflow.entities import Metric, RunTag

        now, values = int(time.time() * 1000), {key: float(metrics[key]) for key in metrics}
        tags = [RunTag(key, f"{value} at step {step}") for key, value in values.items()
                if math.isinf(value)]  # MLflow would show 1.797e308
        rows = [Metric(key, value, now, step) for key, value in values.items()
                if not math.isinf(value)]
        self.step, self.last = max(step, self.step), self.last | values
        self._write(lambda: self.client.log_batch(self.id, rows, tags=tags))

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
        """Log the final numbers that are not those of the last step, and end the run."""
        self.log(self.step, {
            key: value for key, value in metrics.items()
            if isinstance(value, numbers.Real) and self.last.get(key) != float(value)})
        self._end("FINISHED")

    def _end(self, status: str = "") -> None:
        """End the run; without `finish`, at the process's end, it is what its stage was."""
        atexit.unregister(self._end)
        # Python and IPython keep the exception by which a program or a cell ended.
        status = status or ("FAILED" if hasattr(sys, "last_value") else "FINISHED")
        self.next_copy = 0.0
        self._write(lambda: self.client.set_terminated(self.id, status))

    def _write(self, call: Callable[[], object]) -> None:
        """Write to the run's store by `call`, and copy the run to the server if a copy is due.

        Copies take a twentieth of the notebook's time at most. A store that failed gets no more.
        """
        from mlflow.exceptions import MlflowException

        try:
            if not self.failed:
                call()
        except (MlflowException, OSError, UserError) as error:
            if self.trial:
                raise
            self.failed, self.server = True, ""
            self._report("mlflow.db", error)
        began = time.monotonic()
        if not self.server or began < self.next_copy:
            return
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would write into a cell's output
        try:
            copy_run(self.client, self.id, client(self.server))
        except Exception as error:  # of any library below MLflow's client, such as one for S3
            self._report(f"MLflow at {without_credentials(self.server)}", error,
                         "It is kept in mlflow.db, nbproof sync sends it. ")
            self.server = ""
        now = time.monotonic()
        self.next_copy = now + max(EVERY, 20 * (now - began))

    def _report(self, store: str, error: Exception, more: str = "") -> None:
        say(message=f"{store} did not take all of the run of {self.name} "
                    f"({without_credentials(str(error))}). {more}The results on disk are whole.")


start = Run  # how a notebook calls it: tracking.start("NAME", ...)


def runs_of(_: Run, names: list[str]) -> dict[str, str]:
    """Return the tags run.NAME: the `model_digest` that the runs of models/NAME have."""
    return {f"run.{name}": digest(source(f"models/{name}")) for name in names}


def sync() -> int:
    """Send the server each ended run that it lacks; print and return 0 if it took all."""
    from filelock import FileLock

    if address() == local_address():
        print("There is no tracking server to send to: every run is in mlflow.db. "
              "nbproof remote names a server.")
        return 0
    local, server, sent, failed = client(local_address()), client(), [], []
    with (FileLock(root() / "mlflow.db.sync.lock"),  # two would make two copies
          refused("MLflow at {store} took no runs ({reason}): nbproof sync again later.")):
        close_dead_runs(local)
        whole = {(run.data.tags["origin"], run.info.status)
                 for run in runs(server, "tags.origin != ''")}
        for run in runs(local, "tags.process != '' and attributes.status != 'RUNNING'"):
            if (run.info.run_id, run.info.status) in whole:
                continue
            name = run.data.tags["notebook"]
            try:
                copy_run(local, run.info.run_id, server)
                sent.append(name)
            except Exception as error:  # of any library below MLflow's client: S3, Azure
                trace()
                failed.append(f"{name} ({without_credentials(str(error)).rstrip('.')})")
    print(f"MLflow at {without_credentials(address())} took {len(sent)} runs"
          f"{': ' * bool(sent)}{', '.join(sent)}.")
    if failed:
        print(f"Not sent: {', '.join(failed)}. nbproof sync again later.", file=sys.stderr)
    return 1 if failed else 0
