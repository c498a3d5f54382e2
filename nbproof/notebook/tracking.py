"""MLflow runs: where they are kept, how a notebook logs one, and how a server gets it.

Every run is logged to mlflow.db and mlartifacts/ at the project's root. If there is a tracking server, a thread sends
what is new, so that curves grow there while the notebook works. What the server does not take stays marked with the
tag `unsent`, and `make sync` sends it. A run that somebody else began (MLFLOW_RUN_ID, a trial of a sweep) is logged to
its store directly. What varies from run to run (seconds, ids, the commit) belongs here and in no output.
"""

import atexit
import contextlib
import io
import logging
import os
import random
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import CONTRACT, digest, from_yaml, output, root, source
from nbproof.notebook.progress import say

PATIENCE = 20  # seconds that a notebook waits at its end for the server
UNSENT = "unsent"  # the tag of a local run that a server should have and has not; its value names the server
EXPLORATIONS = "explore"  # the experiment of notebooks that no stage runs
TRAINING = {"mlflow.experimentKind": "custom_model_development"}  # else MLflow's page opens for judges and prompts
NOTE = "mlflow.note.content"  # the tag that MLflow's page shows as a description
RESULTS = [":(exclude)dvc.lock", *(f":(exclude){name}" for name in ("data", "metrics", "models", "reports"))]
DIFF = "source.diff"  # the file of a run with what its sources have that the commit has not
ADDRESSES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("model_versions", "source"),
             ("model_versions", "storage_location"), ("logged_models", "artifact_location"))  # in MLflow's own tables
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # a model's requirements must not depend on the folder in which it is saved
}
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)


class Unusable(UserError):
    """A store's database that cannot be read; the message says how it can again."""


def address() -> str:
    """The tracking store: MLFLOW_TRACKING_URI, or `tracking` in remote.yaml, or the local one."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _yaml("remote.yaml").get("tracking") or local_address()


def local_address() -> str:
    """The SQLite file at the project's root."""
    return f"sqlite:///{(root() / 'mlflow.db').as_posix()}"


def database(store: str) -> Path:
    """The file of a store that is one, sqlite:///PATH."""
    return Path(store.removeprefix("sqlite:///").partition("?")[0])


def settle() -> None:
    """Let MLflow run a pickle only if the project says so."""
    trusted = str(_yaml(CONTRACT).get("pickle") is True).lower()
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", trusted)


def client(store: str = ""):
    """An MLflow client of the store at `store`, or at `address()`; it gives a server up after some 20 s.

    Unusable, with the cure, where the database of a store without a server cannot be used.
    """
    settle()
    import mlflow
    from filelock import FileLock
    from mlflow.exceptions import MlflowException

    store = store or address()
    if not store.startswith("sqlite:"):
        return mlflow.MlflowClient(store, store)
    path = database(store)
    # The first client sets a new database up, and two of them at once would race in its first migration.
    with FileLock(root() / "mlflow.db.lock", timeout=120):
        try:
            if not path.exists() or path.is_file() and not path.stat().st_size:
                _make(path)
            # MLflow would try for hours to open a file that cannot be opened
            with contextlib.closing(sqlite3.connect(path)) as opened, opened:
                opened.execute("PRAGMA schema_version")
                if store == local_address():
                    _follow(opened)
            return mlflow.MlflowClient(store, store)
        except (sqlite3.Error, MlflowException, OSError) as error:
            raise Unusable(f"{path.name} {_cure(path, str(error))}") from None


def _make(path: Path) -> None:
    """A new database, made beside its place: one that a kill leaves half-made could never be opened again."""
    import mlflow

    for left in path.parent.glob(f"{path.name}.new-*"):
        left.unlink()
    beside = path.with_name(f"{path.name}.new-{uuid.uuid4().hex}")  # MLflow knows a database that it made by its name
    mlflow.MlflowClient(f"sqlite:///{beside.as_posix()}").delete_experiment("0")  # Default, which nobody uses
    os.replace(beside, path)


def _follow(database: sqlite3.Connection) -> None:
    """Let the addresses of artifacts, which are absolute in MLflow, follow a project that was moved or copied."""
    here = (root() / "mlartifacts").as_uri()
    known = {place for (place,) in database.execute("SELECT artifact_location FROM experiments")}
    for old in (place for place in known if place and place.endswith("/mlartifacts") and place != here):
        for table, column in ADDRESSES:
            database.execute(f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                             (here, len(old) + 1, len(old), old))


def _cure(path: Path, error: str) -> str:
    """What is wrong with the database at `path`, and what to do."""
    if "locked" in error:
        return "is locked by another program: end that, then try again."
    if "database schema" in error or "no such table" in error or "no such column" in error:
        return ("is of another version of MLflow: a newer one needs that MLflow; an older one is brought up to date by "
                f"`mlflow db upgrade sqlite:///{path.name}`, inside .venv, after a copy.")
    return (f"cannot be read ({without_credentials(error)}): put a copy of it back, or move it away, and the next "
            "command makes an empty one.")


def without_credentials(text: str, length: int = 300) -> str:
    """`text` on one line of at most `length` characters, without SQL, and without user and password in any address."""
    return " ".join(re.sub(r"://[^/\s]*@", "://", text.partition("[SQL: ")[0]).split())[:length]


def commit() -> str:
    """The commit that the project stands on, `unknown` outside git or without it."""
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root(), capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return asked.stdout.strip() if asked.returncode == 0 else "unknown"


def changes() -> str:
    """What the tracked sources below the project have that the commit has not, as git's diff; results are none."""
    command = ["git", "diff", "--no-ext-diff", "--no-textconv", "HEAD", "--", ".", *RESULTS]
    try:
        asked = subprocess.run(command, cwd=root(), capture_output=True, encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return asked.stdout if asked.returncode == 0 else ""


def process() -> str:
    """This process, as the tag `process` names it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_alive(tag: str, started: float) -> bool | None:
    """Whether the process that began a run at `started` (seconds since 1970) still works; None on another machine."""
    import psutil

    host, _, pid = tag.partition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return None
    try:  # a later process may have got its number
        return psutil.Process(int(pid)).create_time() <= started + 1
    except psutil.NoSuchProcess:
        return False


def experiment(client, name: str = "", store: str = "") -> str:
    """The id of the experiment `name` in the store at `store` (`address()` if left out), made where it is missing.

    The name left out is MLFLOW_EXPERIMENT_NAME, else the project's name in a stage and `explore` by hand.
    """
    from mlflow.exceptions import MlflowException

    ours = _yaml(CONTRACT).get("name") if os.environ.get("NBPROOF_OUTPUT") else EXPLORATIONS
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or ours
    if known := client.get_experiment_by_name(name):
        return known.experiment_id
    # without a place, a store that is no server puts artifacts into the working folder
    place = (root() / "mlartifacts").as_uri() if (store or address()).startswith("sqlite:") else None
    about = "Runs that people began by hand." if name == EXPLORATIONS else f"Runs of the notebooks of {name}."
    try:
        return client.create_experiment(name, place, TRAINING | {NOTE: f"{about} Made by nbproof."})
    except MlflowException:  # another process may have made it a moment ago
        if known := client.get_experiment_by_name(name):
            return known.experiment_id
        raise


def runs(client, query: str) -> list:
    """The runs of all experiments for which `query` holds, the oldest first."""
    experiments = [each.experiment_id for each in client.search_experiments()]
    return client.search_runs(experiments, query, max_results=50_000, order_by=["start_time ASC"])


def close_dead_runs(client) -> None:
    """Mark as KILLED what a process of this machine left RUNNING when it was killed."""
    for run in runs(client, "attributes.status = 'RUNNING'"):
        if is_alive(run.data.tags.get("process", ""), run.info.start_time / 1000) is False:
            client.set_terminated(run.info.run_id, "KILLED")


class Run:
    """The MLflow run of the notebook `name`; `data` is the name and the digest of what it works on.

    A store that fails costs no result: what went wrong is said once, at the end.
    """

    def __init__(
        self, name: str, parameters: dict, data: tuple[str, str] | None = None, tags: dict[str, str] | None = None,
    ):
        self.name, self.parameters, self.data, self.tags = name, parameters, data, tags or {}
        self.began, self.adopted, self.store = time.monotonic(), os.environ.get("MLFLOW_RUN_ID"), address()
        self.client, self.id, self.by_step, self.trouble = None, "", set(), ""
        self.news, self.over, self.sender = threading.Event(), threading.Event(), None
        self._write(self._open)
        atexit.register(self._end, "FAILED")
        if self.id and not self.adopted and self.store != local_address():
            self.sender = threading.Thread(target=self._forward, daemon=True)
            self.sender.start()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """The metrics of one step, such as an epoch."""
        from mlflow.entities import Metric

        self.by_step |= set(metrics)
        rows = [Metric(key, float(value), int(time.time() * 1000), step) for key, value in metrics.items()]
        self._write(lambda: self.client.log_batch(self.id, rows))

    def figure(self, name: str, figure) -> None:
        """A figure that the notebook shows."""
        self._write(lambda: self.client.log_figure(self.id, figure, f"figures/{name}.png"))

    def tag(self, tags: dict[str, str]) -> None:
        """Facts about the run, by name."""
        self._write(lambda: [self.client.set_tag(self.id, *each) for each in tags.items()])

    def model(self, name: str) -> None:
        """The model that the notebook wrote as the output models/NAME."""
        folder = output(f"models/{name}")
        self.tag({"model_digest": digest(folder)})
        self._write(lambda: self.client.log_artifacts(self.id, str(folder), "model"))

    def finish(self, metrics: dict[str, float]) -> None:
        """Log the numbers that no step had, and the seconds since the start, and end the run."""
        new = [key for key, value in metrics.items() if isinstance(value, int | float) and key not in self.by_step]
        self.log(0, {key: metrics[key] for key in new} | {"seconds": time.monotonic() - self.began} | _used())
        self._end("FINISHED")

    def _open(self) -> None:
        """Make the run, or find the one that was made for us."""
        from mlflow.entities import Dataset, DatasetInput, Param

        store = self.store if self.adopted else local_address()
        self.client, self.id = client(store), self.adopted
        if not self.adopted:
            close_dead_runs(self.client)
            mark = {UNSENT: without_credentials(self.store)} if self.store != store else {}
            changed = changes()
            tags = self.tags | mark | {
                "mlflow.source.name": f"notebooks/{self.name}.ipynb", "mlflow.source.type": "NOTEBOOK",
                "mlflow.source.git.commit": commit(), "git_dirty": str(bool(changed)).lower(),
                "notebook": self.name, "process": process(), "key": uuid.uuid4().hex, NOTE: self._about(changed),
            }
            ours = experiment(self.client, store=store)
            self.id = self.client.create_run(ours, run_name=self.name, tags=tags).info.run_id
            if changed:
                self.client.log_text(self.id, changed, DIFF)
        self.client.log_batch(self.id, params=[Param(key, str(value)) for key, value in self.parameters.items()])
        if self.data:
            name, digest = self.data
            dataset = Dataset(name=name, digest=digest[:32], source_type="dvc", source=name)
            _log_inputs(self.client, self.id, [DatasetInput(dataset)])

    def _about(self, changed: str) -> str:
        """The run in a sentence or two, for people."""
        data = f" on {self.data[0]}" if self.data else ""
        since = f" Its sources had changes that the commit has not: {DIFF}." if changed else ""
        return f"notebooks/{self.name}.ipynb{data}.{since}"

    def _write(self, call: Callable[[], object]) -> None:
        """`call()`, whose words stay out of the notebook. After a failure nothing more is written."""
        if self.trouble:
            return
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                call()
        except Exception as error:  # of whatever library below the store; told by _end
            if self.adopted:
                raise
            self.trouble = without_credentials(str(error))
        self.news.set()

    def _end(self, status: str) -> None:
        atexit.unregister(self._end)
        self._write(lambda: self.client.set_terminated(self.id, status))
        whole = "The results on disk are whole."
        if self.trouble:
            say(message=f"mlflow.db did not take all of the run of {self.name}: {self.trouble}. {whole}")
        if not self.sender:
            return
        self.failure = f"it answered too slowly for the {PATIENCE} s that a notebook waits"
        self.over.set()
        self.news.set()
        self.sender.join(PATIENCE)
        if self.failure:
            say(message=f"MLflow at {without_credentials(self.store)} did not take all of the run of {self.name} "
                        f"({self.failure}): it is kept in mlflow.db, make sync sends it. {whole}")

    def _forward(self) -> None:
        """Send what is new again and again; the last time, all of it."""
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # what it says of each retry would stand in the notebook
        sent, last = {}, False
        while not last:
            self.news.wait()
            self.news.clear()
            last, failure = self.over.is_set(), ""
            try:
                send(self.id, client(self.store), sent, live=not last)
            except Exception as error:  # of whatever library below the server's client; told by _end
                failure, sent = without_credentials(str(error), 200), {}
            self.over.wait(1)
        self.failure = failure


def _used() -> dict[str, float]:
    """What this process has used: processor seconds, and the most memory where the system tells (in megabytes)."""
    used = {"system/cpu_seconds": time.process_time()}
    with contextlib.suppress(ImportError):  # Windows
        import resource

        unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
        used["system/memory_peak_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return used


start = Run  # tracking.start("NAME", ...) is how a notebook says it


def runs_of(run: Run, names: list[str]) -> dict[str, str]:
    """Tags that say which runs made the stored models `names`: the key of the newest finished run with each model."""
    found: dict[str, list] = {}
    for name in names:
        query = f"attributes.status = 'FINISHED' and tags.model_digest = '{digest(source(f'models/{name}'))}'"
        run._write(lambda name=name, query=query: found.update({f"run.{name}": runs(run.client, query)[-1:]}))
    return {tag: each.data.tags["key"] for tag, newest in found.items() for each in newest if "key" in each.data.tags}


def send(run_id: str, server, sent: dict | None = None, live: bool = False) -> None:
    """Bring a server's run to the state of the local one. What the server has already it does not get twice.

    `sent` keeps between calls what the server has. While the run is `live`, its files and its end wait.
    """
    from filelock import FileLock

    local = client(local_address())
    run = local.get_run(run_id)
    folder = Path(url2pathname(urlsplit(run.info.artifact_uri).path))
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / "sending.lock", timeout=0):  # a late thread of the notebook and a sync
        target = _send_facts(local, run, server, {} if sent is None else sent)
        if live:
            return
        if any(folder.iterdir()):
            server.log_artifacts(target, str(folder))
        status = "KILLED" if run.info.status == "RUNNING" else run.info.status  # its process is gone
        server.set_terminated(target, status, run.info.end_time)
        local.delete_tag(run_id, UNSENT)


def _send_facts(local, run, server, sent: dict) -> str:
    """Send parameters, tags, data and metrics; returns the id of the server's run."""
    from mlflow.entities import DatasetInput, Param, RunTag

    tags = {key: value for key, value in run.data.tags.items() if key not in (UNSENT, "mlflow.runName")}
    if not sent:
        ours = experiment(server, local.get_experiment(run.info.experiment_id).name, server.tracking_uri)
        found = server.search_runs([ours], f"tags.key = '{tags['key']}'", max_results=1)
        made = found or [server.create_run(ours, run.info.start_time, tags, run.info.run_name)]
        sent.update(run=made[0].info.run_id, rows=set())
        for key in run.data.metrics if found else ():
            sent["rows"] |= {_identity(row) for row in server.get_metric_history(sent["run"], key)}
        inputs = [DatasetInput(each.dataset, each.tags) for each in run.inputs.dataset_inputs]
        if inputs and not made[0].inputs.dataset_inputs:
            _log_inputs(server, sent["run"], inputs)
    history = [row for key in run.data.metrics for row in local.get_metric_history(run.info.run_id, key)]
    rows = [row for row in history if _identity(row) not in sent["rows"]]
    params = [Param(*each) for each in run.data.params.items()]
    server.log_batch(sent["run"], rows, params, [RunTag(*each) for each in tags.items()])
    sent["rows"] |= {_identity(row) for row in rows}
    return sent["run"]


def _identity(row) -> tuple:
    return row.key, row.timestamp, row.step, repr(row.value)  # as text, because NaN is not equal to itself


def _log_inputs(client, run_id: str, inputs: list) -> None:
    """Log the data of a run. Runs that log the same new data at once race in MLflow: all but one try again."""
    from mlflow.exceptions import MlflowException

    waits = [0.1 * 1.5**attempt for attempt in range(12)]  # 25 s in all
    while True:
        try:
            client.log_inputs(run_id, datasets=inputs)
            return
        except MlflowException as error:
            if "unique constraint" not in str(error).lower() or not waits:
                raise
            time.sleep(random.uniform(0, waits.pop(0)))  # a fixed time would let the same two meet again


def _yaml(name: str) -> dict:
    """A file of the project, which may be missing; its content is checked elsewhere."""
    path = root() / name
    return from_yaml(path.read_text(encoding="utf-8")) or {} if path.exists() else {}
