"""MLflow runs that a training never waits for long, and is never lost to.

Without MLFLOW_TRACKING_URI everything goes to one SQLite file and a folder at the project's root. What varies from run
to run (seconds, ids, the commit) belongs here and in no notebook's output.
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
from pathlib import Path

import psutil
from filelock import FileLock
from matplotlib.figure import Figure
from torch import nn

from digits import models, paths
from digits.data import Digits
from digits.paths import ROOT
from digits.progress import say, without_credentials

PATIENCE = 25  # seconds that a store may take to answer; the first that it does not is the last that is asked
for name, value in {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
}.items():
    os.environ.setdefault(name, value)


def store_address() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file at the project's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(ROOT / 'mlflow.db').as_posix()}"


class Run:
    """One MLflow run. The first call that the store does not answer is the last that is made; the rest is listed as missed."""

    def __init__(self, name: str, parameters: dict, digits_source: str, digits_digest: str, device: str = "cpu"):
        self.name, self.id, self.missed, self.by_epoch, self.started = name, None, [], set(), time.monotonic()
        self.reachable, self.reason, self.device = True, "", device
        atexit.register(self._end, "FAILED")
        with contextlib.suppress(ImportError):  # slow on a busy machine, and no reason to lose patience with the store
            import mlflow  # noqa: F401

        self._attempt("the run", self._open, parameters, digits_source, digits_digest)

    def _attempt(self, what: str, call, *arguments):
        """`call(*arguments)` in a thread that is given up after PATIENCE seconds; whatever it prints stays out of the notebook."""
        if not self.reachable:
            self.missed.append(what)
            return
        failures: list[BaseException] = []

        def work():
            try:
                call(*arguments)
            except Exception as error:  # any failure of the store, of whatever library below it: reported by _end
                failures.append(error)

        worker = threading.Thread(target=work, daemon=True)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            worker.start()
            worker.join(PATIENCE)
        if worker.is_alive() or failures:
            self.reachable, self.missed = False, [*self.missed, what]
            self.reason = " ".join(without_credentials(str(failures[0])).split())[:200] if failures else f"no answer within {PATIENCE} s"

    def _open(self, parameters: dict, source: str, digest: str) -> None:
        import mlflow
        from mlflow.entities import Dataset, DatasetInput, Param

        local = store_address().startswith("sqlite:")
        # A new database is set up by whoever comes first: two at once would race in its first migration.
        with FileLock(ROOT / "mlflow.db.lock", timeout=PATIENCE) if local else contextlib.nullcontext():
            self.client = mlflow.MlflowClient(store_address())
            experiment = _experiment(self.client, local)
            _close_dead_runs(self.client, experiment)
        tags = {
            "mlflow.source.name": f"notebooks/{self.name}.ipynb", "mlflow.source.type": "NOTEBOOK", "mlflow.source.git.commit": _commit(),
            "notebook": self.name, "device": self.device, "process": _process(os.getpid()),
        }
        adopted = os.environ.get("MLFLOW_RUN_ID")  # whoever started the notebook may have made its run already
        run_id = adopted or self.client.create_run(experiment, run_name=self.name, tags=tags).info.run_id
        self.client.log_batch(run_id, params=[Param(key, str(value)) for key, value in parameters.items()])
        dataset = Dataset(name=source, digest=digest[:32], source_type="dvc", source="data/train.safetensors")
        self.client.log_inputs(run_id, datasets=[DatasetInput(dataset)])
        self.id = run_id

    def log(self, epoch: int, metrics: dict[str, float]) -> None:
        """The metrics of one epoch."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.by_epoch |= set(metrics)
        self._attempt(f"epoch {epoch}", lambda: self.client.log_batch(self.id, [Metric(key, value, now, epoch) for key, value in metrics.items()]))

    def figure(self, name: str, figure: Figure) -> None:
        """A figure that the notebook shows."""
        self._attempt(f"figure {name}", lambda: self.client.log_figure(self.id, figure, f"figures/{name}.png"))

    def tag(self, tags: dict[str, str]) -> None:
        """Facts about the run, by name."""
        self._attempt("tags", lambda: [self.client.set_tag(self.id, key, value) for key, value in tags.items()])

    def model(self, net: nn.Module, digits: Digits) -> None:
        """The model with its signature, as MLflow keeps it (pt2, no pickle), and the digest of the project's own copy."""
        self._attempt("the model", self._log_model, net, digits)

    def _log_model(self, net: nn.Module, digits: Digits) -> None:
        import mlflow.pytorch
        import torch

        example = digits.validation.images[:2].cpu()
        signature = mlflow.models.infer_signature(example.numpy(), net(example).detach().numpy())
        with tempfile.TemporaryDirectory() as folder:
            # save_model and log_artifacts, not log_model: 2.x servers know no logged models
            mlflow.pytorch.save_model(
                net, Path(folder) / "model", signature=signature, input_example=example.numpy(), serialization_format="pt2",
                pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
            )
            self.client.log_artifacts(self.id, folder)

    def finish(self, metrics: dict[str, float]) -> None:
        """Log the final numbers that no epoch had, and the seconds since the start, and end the run."""
        final = {key: value for key, value in metrics.items() if isinstance(value, int | float) and key not in self.by_epoch}
        self._attempt("the final metrics", lambda: [self.client.log_metric(self.id, key, value) for key, value in final.items()])
        self._attempt("the seconds", lambda: self.client.log_metric(self.id, "seconds", time.monotonic() - self.started))
        self._end("FINISHED")

    def _end(self, status: str) -> None:
        atexit.unregister(self._end)
        if self.id:
            self._attempt("the end", lambda: self.client.set_terminated(self.id, status))
        if self.missed:
            say(message=f"MLflow at {without_credentials(store_address())} did not take everything ({self.reason}); "
                        f"not logged: {', '.join(self.missed)}. The results on disk are whole.")


def start(name: str, parameters: dict, digits: Digits) -> Run:
    """Begin the MLflow run of a training of `name` on `digits`."""
    return Run(name, parameters, digits.source, digits.digest, digits.train.images.device.type)


def runs_of(run: Run, names: list[str]) -> dict[str, str]:
    """The ids of the newest runs that trained exactly the stored models `names`, where this store knows them."""
    found: dict[str, str] = {}

    def search():
        experiment = run.client.get_run(run.id).info.experiment_id
        for name in names:
            query = f"tags.model_digest = '{models.digest(paths.source(f'models/{name}.pt2'))}' and attributes.status = 'FINISHED'"
            for match in run.client.search_runs([experiment], query, max_results=1):
                found[f"run.{name}"] = match.info.run_id

    run._attempt("the runs compared", search)
    return found


def _experiment(client, local: bool) -> str:
    """The id of the experiment MLFLOW_EXPERIMENT_NAME, made where it is missing; unset, it is `digits` in a stage, `explore` by hand."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or ("digits" if os.environ.get("OUTPUT_ROOT") else "explore")
    if known := client.get_experiment_by_name(name):
        return known.experiment_id
    try:
        return client.create_experiment(name, (ROOT / "mlartifacts").as_uri() if local else None)
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
