"""MLflow runs that a training never waits for long, and is never lost to.

The store is MLFLOW_TRACKING_URI, else the one that remote.yaml names, else one SQLite file and a folder at the project's
root. What a store does not take is kept in a store of the same kind below unsent/, from which `make sync` sends it. What
varies from run to run (seconds, ids, the commit) belongs here and in no notebook's output.
"""

import atexit
import contextlib
import io
import os
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from pathlib import Path

import psutil
from filelock import FileLock
from matplotlib.figure import Figure
from ruamel.yaml import YAML
from torch import nn

from digits import models, paths
from digits.data import Digits
from digits.paths import ROOT
from digits.progress import say, without_credentials

PATIENCE = 20  # seconds that a training waits for its store, all calls together; then the rest is kept for later
UNSENT = ROOT / "unsent"
for name, value in {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
}.items():
    os.environ.setdefault(name, value)


def store_address() -> str:
    """MLFLOW_TRACKING_URI, or `tracking` in remote.yaml, or the SQLite file at the project's root."""
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    remote = ROOT / "remote.yaml"
    named = YAML(typ="safe").load(remote.read_text(encoding="utf-8")) if remote.exists() else None
    return (named or {}).get("tracking") or f"sqlite:///{(ROOT / 'mlflow.db').as_posix()}"


class Run:
    """One MLflow run. Once its store fails, or PATIENCE is used up, the run goes on in the store below unsent/."""

    def __init__(self, name: str, parameters: dict, digits_source: str, digits_digest: str, device: str = "cpu"):
        self.name, self.id, self.by_epoch, self.started = name, None, set(), time.monotonic()
        self.client, self.patience, self.kept, self.lost, self.reason = None, PATIENCE, [], [], ""
        self.server_run, self.device = None, device
        self.parameters, self.dataset = parameters, (digits_source, digits_digest)
        # Whoever started the notebook may have made its run already. The key finds a run again whose id never reached us.
        self.adopted, self.key = os.environ.get("MLFLOW_RUN_ID"), uuid.uuid4().hex
        atexit.register(self._end, "FAILED")
        with contextlib.suppress(ImportError):  # slow on a busy machine, and no reason to lose patience with the store
            import mlflow  # noqa: F401

        self._attempt("the run", self._open)

    def _attempt(self, what: str, call) -> None:
        """`call(client, run_id)` on the store, else on the one below unsent/; `what` is said if the store did not take it."""
        if not self.kept:
            failure = self._patiently(call, self.client, self.id)
            if failure is None:
                return
            self.reason = failure
            self.server_run, self.client, self.id = self.adopted or self.id, None, None
        if not self.lost and (self.client or call == self._open or self._patiently(self._open) is None):
            if (failure := self._patiently(call, self.client, self.id)) is None:
                self.kept.append(what)
                return
            self.reason += f"; nor could it be kept in unsent/: {failure}"
        self.kept.append(what)
        self.lost.append(what)

    def _patiently(self, call, *arguments) -> str | None:
        """`call(*arguments)` in a thread that is given up once the patience is used up; what failed. What it prints stays out of the notebook."""
        failures: list[BaseException] = []

        def work():
            try:
                call(*arguments)
            except Exception as error:  # any failure of the store, of whatever library below it: reported by _end
                failures.append(error)

        # the store below unsent/ is on this machine: it gets a patience of its own
        patience, began = 60 if self.reason else max(0.1, self.patience), time.monotonic()
        worker = threading.Thread(target=work, daemon=True)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            worker.start()
            worker.join(patience)
        self.patience -= time.monotonic() - began
        if worker.is_alive():
            return f"it answered too slowly for the {PATIENCE} s that a training waits"
        return " ".join(without_credentials(str(failures[0])).split())[:200] if failures else None

    def _open(self, *_) -> None:
        """Make the run, or find the one that was made for us."""
        import mlflow
        from mlflow.entities import Dataset, DatasetInput, Param

        unsent = bool(self.reason)
        address = f"sqlite:///{(UNSENT / 'mlflow.db').as_posix()}" if unsent else store_address()
        folder = UNSENT if unsent else ROOT
        if unsent:
            folder.mkdir(exist_ok=True)
        local = address.startswith("sqlite:")
        tags = {
            "mlflow.source.name": f"notebooks/{self.name}.ipynb", "mlflow.source.type": "NOTEBOOK", "mlflow.source.git.commit": _commit(),
            "notebook": self.name, "device": self.device, "process": _process(os.getpid()), "key": self.key,
            **({"server_run": self.server_run} if unsent and self.server_run else {}),
        }
        # A new database is set up by whoever comes first: two at once would race in its first migration.
        with FileLock(folder / "mlflow.db.lock", timeout=60) if local else contextlib.nullcontext():
            client = mlflow.MlflowClient(address)
            experiment = _experiment(client, folder / "mlartifacts" if local else None)
            if not unsent:
                _close_dead_runs(client, experiment)
            adopted = None if unsent else self.adopted
            run_id = adopted or client.create_run(experiment, run_name=self.name, tags=tags).info.run_id
        client.log_batch(run_id, params=[Param(key, str(value)) for key, value in self.parameters.items()])
        source, digest = self.dataset
        dataset = Dataset(name=source, digest=digest[:32], source_type="dvc", source="data/train.safetensors")
        client.log_inputs(run_id, datasets=[DatasetInput(dataset)])
        if unsent == bool(self.reason):  # else this call was given up meanwhile
            self.client, self.id = client, run_id

    def log(self, epoch: int, metrics: dict[str, float]) -> None:
        """The metrics of one epoch."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.by_epoch |= set(metrics)
        rows = [Metric(key, value, now, epoch) for key, value in metrics.items()]
        self._attempt(f"epoch {epoch}", lambda client, run: client.log_batch(run, rows))

    def figure(self, name: str, figure: Figure) -> None:
        """A figure that the notebook shows."""
        self._attempt(f"figure {name}", lambda client, run: client.log_figure(run, figure, f"figures/{name}.png"))

    def tag(self, tags: dict[str, str]) -> None:
        """Facts about the run, by name."""
        self._attempt("tags", lambda client, run: [client.set_tag(run, key, value) for key, value in tags.items()])

    def model(self, net: nn.Module, digits: Digits) -> None:
        """The model with its signature, as MLflow keeps it (pt2, no pickle)."""
        with tempfile.TemporaryDirectory() as folder:
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                models.save_for_mlflow(net, digits, Path(folder) / "model")
            # log_artifacts, not log_model: 2.x servers know no logged models
            self._attempt("the model", lambda client, run: client.log_artifacts(run, folder))

    def finish(self, metrics: dict[str, float]) -> None:
        """Log the final numbers that no epoch had, and the seconds since the start, and end the run."""
        from mlflow.entities import Metric

        final = {key: value for key, value in metrics.items() if isinstance(value, int | float) and key not in self.by_epoch}
        now = int(time.time() * 1000)
        rows = [Metric(key, value, now, 0) for key, value in {**final, "seconds": time.monotonic() - self.started}.items()]
        self._attempt("the final metrics", lambda client, run: client.log_batch(run, rows))
        self._end("FINISHED")

    def _end(self, status: str) -> None:
        atexit.unregister(self._end)
        now = int(time.time() * 1000)
        self._attempt("the end", lambda client, run: client.set_terminated(run, status, now))
        if self.kept:
            what = ", ".join(self.kept)
            where = f"lost: {', '.join(self.lost)}" if self.lost else "kept in unsent/, make sync sends it"
            say(message=f"MLflow at {without_credentials(store_address())} did not take everything ({self.reason}); not logged: {what}; "
                        f"{where}. The results on disk are whole.")


def start(name: str, parameters: dict, digits: Digits) -> Run:
    """Begin the MLflow run of a training of `name` on `digits`."""
    return Run(name, parameters, digits.source, digits.digest, digits.train.images.device.type)


def runs_of(run: Run, names: list[str]) -> dict[str, str]:
    """The ids of the newest runs that trained exactly the stored models `names`, where this store knows them."""
    found: dict[str, str] = {}

    def search(client, run_id):
        experiment = client.get_run(run_id).info.experiment_id
        for name in names:
            query = f"tags.model_digest = '{models.digest(paths.source(f'models/{name}.pt2'))}' and attributes.status = 'FINISHED'"
            for match in client.search_runs([experiment], query, max_results=1):
                found[f"run.{name}"] = match.info.run_id

    run._attempt("the runs compared", search)
    return found


def experiment_of(client) -> str:
    """The id of the experiment in which the stages' runs are, in the store of `store_address()`."""
    os.environ.setdefault("OUTPUT_ROOT", str(ROOT))
    return _experiment(client, ROOT / "mlartifacts" if store_address().startswith("sqlite:") else None)


def _experiment(client, artifacts: Path | None) -> str:
    """The id of the experiment MLFLOW_EXPERIMENT_NAME, made where it is missing; unset, it is `digits` in a stage, `explore` by hand."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or ("digits" if os.environ.get("OUTPUT_ROOT") else "explore")
    if known := client.get_experiment_by_name(name):
        return known.experiment_id
    try:
        return client.create_experiment(name, artifacts.as_uri() if artifacts else None)
    except MlflowException:  # on a server a sibling may have made it a moment ago
        if known := client.get_experiment_by_name(name):
            return known.experiment_id
        raise


def _process(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}"


def _close_dead_runs(client, experiment: str) -> None:
    """Mark as KILLED what a process of this machine left RUNNING when it was killed."""
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        host, _, pid = run.data.tags.get("process", "").partition(":")
        if host == socket.gethostname() and pid.isdigit() and not _is_alive(int(pid), run.info.start_time / 1000):
            client.set_terminated(run.info.run_id, "KILLED")


def _is_alive(pid: int, started: float) -> bool:
    """Whether the process that began a run at `started` (seconds since 1970) is there, and no later one with its number."""
    try:
        return psutil.Process(pid).create_time() <= started + 1
    except psutil.NoSuchProcess:
        return False


def _commit() -> str:
    """The commit that the project stands on, `unknown` outside git."""
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return asked.stdout.strip() if asked.returncode == 0 else "unknown"
