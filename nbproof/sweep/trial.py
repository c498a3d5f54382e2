"""A worker: executes the notebook with one set of values after another until no trial waits."""

import contextlib
import dataclasses
import functools
import logging
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import optuna
from mlflow.exceptions import MlflowException
from optuna.storages.journal import BaseJournalBackend

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.notebook.progress import STEP
from nbproof.pipeline import config
from nbproof.runner import StageFailure, reaper, secrets
from nbproof.runner.execute import execute_notebook
from nbproof.sweep import studies
from nbproof.sweep.space import Sweep

EVERY = 0.5  # seconds between two looks at the trials


@dataclasses.dataclass(frozen=True)
class Job:
    """What each worker needs: the path of the study's `log`, `until` as time.time(), a cell's
    `timeout` in seconds, MLflow's `experiment` and the `tags` of all trials."""

    wanted: Sweep
    log: str
    until: float
    timeout: float
    experiment: str
    tags: dict[str, str]

    @property
    def needs(self) -> dict[str, int]:
        """What a trial takes of a machine, in Ray's words: a GPU where `device` is CUDA."""
        if str(self.wanted.fixed.get("device", "")).startswith("cuda"):
            return {"num_gpus": 1}
        return {"num_cpus": self.wanted.fixed.get("threads") or 1}


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Raise UserError where MLflow or the disk does not take what the block writes."""
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it prints what it raises, too
    try:
        yield
    except (MlflowException, OSError) as error:
        address, reason = map(tracking.without_credentials, (tracking.address(), str(error)))
        raise UserError(f"The sweep stopped: MLflow at {address} or the disk did not keep a trial "
                        f"({reason}). Finished trials are kept: fix that, and the same command "
                        "goes on.") from None


def work(job: Job, number: int, backend: BaseJournalBackend, session: reaper.Session,
         threads: int = 1) -> None:
    """Execute trials, some at the same time, until none waits or the time is over.

    A worker that replaces a lost one has its `number`, and begins with the trial that it had.
    """
    with kept():
        store, study = tracking.client(), studies.opened(job.wanted, backend, number)
        studies.recover(study, store, number)
        objective = functools.partial(reach, job=job, number=number, store=store, session=session)
        study.optimize(objective, timeout=job.until - time.time(), n_jobs=threads,
                       catch=(StageFailure,))


def reach(trial: optuna.Trial, job: Job, number: int, store, session: reaper.Session) -> float:
    """Execute a trial and return its metric; raise StageFailure, or TrialPruned if it is stopped.

    The MLflow run of the trial, in `store`, exists before: the notebook logs to it.
    """
    if "slot" not in trial.user_attrs:  # Optuna makes a trial where none waits
        trial.study.stop()
        raise StageFailure("no trial waits")
    trial.set_user_attr("worker", number)
    tried, slot = job.wanted.suggest(trial), f"{trial.user_attrs['slot']:05d}"
    name, tags = job.wanted.stage.short, job.tags | {"trial": slot, "process": tracking.process()}
    run_id = store.create_run(job.experiment, run_name=f"{name} {slot}", tags=tags).info.run_id
    trial.set_user_attr("run_id", run_id)
    for parameter in tried.items():  # nbproof adopt takes them from there
        store.log_param(run_id, *parameter)
    with tempfile.TemporaryDirectory(dir=session.folder) as temporary:
        folder = Path(temporary)
        mark = {reaper.MARK: session.mark(slot), "NBPROOF_RUN_ID": run_id, "TMPDIR": temporary}
        executed, failure = execute_notebook(
            root() / job.wanted.stage.notebook, job.wanted.fixed | tried,
            math.ceil(min(job.timeout, max(1, job.until - time.time()))), folder,
            functools.partial(observe, trial, job), mark, session.folder)
        session.end(slot)
        secrets.take_out(executed)
        nbformat.write(executed, folder / "trial.ipynb")
        store.log_artifact(run_id, str(folder / "trial.ipynb"), "notebook")
        value = math.nan if failure else metric(job.wanted, folder)
    is_stopped = failure and (failure.error == "TrialPruned" or time.time() > job.until)
    reason = f"{failure or value}" if failure or not math.isfinite(value) else ""
    store.set_tag(run_id, "failure", reason[:500])
    store.set_terminated(run_id, "KILLED" if is_stopped else "FAILED" if reason else "FINISHED")
    if is_stopped:
        raise optuna.TrialPruned
    if reason:
        trial.set_user_attr("failure", reason)
        raise StageFailure(reason)
    return value


def observe(trial: optuna.Trial, job: Job, event: dict) -> None:
    """Report a step of the notebook to the study; raise TrialPruned to stop the notebook."""
    if "ran" not in event and time.time() > job.until:
        raise optuna.TrialPruned("the time of the sweep is over")
    if set(event) == STEP:
        trial.set_user_attr("steps", [event["step"], event["steps"]])
        value = event["metrics"].get(job.wanted.metric.key, math.nan)
        if math.isfinite(value):
            trial.report(value, event["step"])
            if event["step"] < event["steps"] and trial.should_prune():
                raise optuna.TrialPruned("other trials were ahead at this step")


def metric(wanted: Sweep, folder: Path) -> float:
    """Return the number that the notebook wrote below `folder`; UserError where it is missing."""
    name, key = wanted.stage.short, wanted.metric.key
    numbers = dataclasses.replace(config.load(), root=folder).metrics(name)
    if type(numbers.get(key)) not in (int, float):
        raise UserError(f"The sweep stopped: metrics/{name}.json has no number {key}; it has "
                        f"{', '.join(numbers)}. Say which one counts: sweep.{name}.metric in "
                        "params.yaml, or metric.key in project.yaml.")
    return numbers[key]
