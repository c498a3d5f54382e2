"""One trial of a sweep: executes the notebook with the values that Optuna proposes.

The study is Optuna's journal, which each trial opens for itself, on this machine or on another. A
trial that was lost in the middle stays RUNNING there, and counts for nothing.
"""

import dataclasses
import functools
import math
import tempfile
import time
from pathlib import Path

import nbformat
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.notebook.progress import STEP
from nbproof.pipeline import config
from nbproof.runner import reaper, secrets
from nbproof.runner.execute import execute_notebook
from nbproof.sweep.space import Sweep, typed

EVERY = 0.5  # seconds between two looks at the trials
STOPPED = ("The sweep stopped: MLflow at {store} or the disk did not keep a trial ({reason}). "
           "Finished trials are kept: fix that, and the same command goes on.")


def opened(wanted: Sweep, backend: BaseJournalBackend, seed: int = 0) -> optuna.Study:
    """Return the study in a journal, made where there is none."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    return optuna.create_study(
        storage=JournalStorage(backend), study_name=wanted.stage.short, load_if_exists=True,
        direction=f"{wanted.metric.goal}imize", sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(wanted.grace, wanted.reduction))


def ended(study: optuna.Study) -> dict[int, FrozenTrial]:
    """Return the trials that have ended, by the number that the sweep gave them."""
    return {trial.user_attrs["number"]: trial for trial in study.get_trials()
            if trial.state.is_finished()}


@dataclasses.dataclass(frozen=True)
class Job:
    """What each trial needs: the path of the study's `log`, `until` as time.time(), a cell's
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


def work(job: Job, number: int, backend: BaseJournalBackend, session: reaper.Session) -> None:
    """Execute the sweep's trial `number`, unless the time is over, and tell the study its end.

    Each number proposes other values, and the same ones each time if all else is the same.
    """
    with tracking.refused(STOPPED):
        study = opened(job.wanted, backend, seed=number)
        if number in ended(study) or time.time() > job.until:  # ended, and its worker was lost then
            return
        trial = study.ask(job.wanted.space)
        trial.set_user_attr("number", number)
        study.tell(trial, **_execute(trial, job, tracking.client(), session))


def _execute(trial: optuna.Trial, job: Job, store, session: reaper.Session) -> dict:
    """Execute the notebook; return the `values` or the `state` with which the trial ends.

    The MLflow run of the trial, in `store`, exists before: the notebook logs to it.
    """
    name, tried = job.wanted.stage.short, typed(trial.params)
    number = f"{trial.user_attrs['number']:05d}"
    tags = job.tags | {"trial": number}
    run_id = store.create_run(job.experiment, run_name=f"{name} {number}", tags=tags).info.run_id
    trial.set_user_attr("run_id", run_id)
    for parameter in tried.items():  # nbproof adopt takes them from there
        store.log_param(run_id, *parameter)
    with tempfile.TemporaryDirectory(dir=session.folder) as temporary:
        folder = Path(temporary)
        mark = {reaper.MARK: session.mark(number), "NBPROOF_RUN_ID": run_id, "TMPDIR": temporary}
        executed, failure = execute_notebook(
            root() / job.wanted.stage.notebook, job.wanted.fixed | tried,
            math.ceil(min(job.timeout, max(1, job.until - time.time()))), folder,
            functools.partial(_observe, trial, job), mark, session.folder)
        session.end(number)
        secrets.take_out(executed)
        nbformat.write(executed, folder / "trial.ipynb")
        store.log_artifact(run_id, str(folder / "trial.ipynb"), "notebook")
        value = math.nan if failure else _metric(job.wanted, folder)
    is_stopped = failure and (failure.error == "TrialPruned" or time.time() > job.until)
    reason = f"{failure or value}" if failure or not math.isfinite(value) else ""
    store.set_tag(run_id, "failure", reason[:500])
    store.set_terminated(run_id, "KILLED" if is_stopped else "FAILED" if reason else "FINISHED")
    if reason:
        return {"state": TrialState.PRUNED if is_stopped else TrialState.FAIL}
    return {"values": value}


def _observe(trial: optuna.Trial, job: Job, event: dict) -> None:
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


def _metric(wanted: Sweep, folder: Path) -> float:
    """Return the number that the notebook wrote below `folder`; UserError where it is missing."""
    name, key = wanted.stage.short, wanted.metric.key
    numbers = dataclasses.replace(config.load(), root=folder).metrics(name)
    if type(numbers.get(key)) not in (int, float):
        raise UserError(f"The sweep stopped: metrics/{name}.json has no number {key}; it has "
                        f"{', '.join(numbers) or 'none'}. Say which one counts: "
                        f"sweep.{name}.metric in params.yaml, or metric.key in project.yaml.")
    return numbers[key]
