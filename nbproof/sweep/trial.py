"""A worker: executes the notebook with one set of values after another until no trial waits.

The study is Optuna's journal, with as many slots as there are trials. A slot is a trial that waits
for a worker. One that was lost in the middle waits again, so a slot may have several trials in the
study, of which the last one counts.
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
from nbproof.runner import StageFailure, reaper, secrets
from nbproof.runner.execute import execute_notebook
from nbproof.sweep.space import Sweep

EVERY = 0.5  # seconds between two looks at the trials
STOPPED = ("The sweep stopped: MLflow at {store} or the disk did not keep a trial ({reason}). "
           "Finished trials are kept: fix that, and the same command goes on.")
RETRIES = 3  # of a trial whose worker was lost


def opened(wanted: Sweep, backend: BaseJournalBackend, worker: int = 0) -> optuna.Study:
    """Return the study in a journal, made where there is none.

    Each worker proposes other values, and the same ones each time if all else is the same.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    study = optuna.create_study(
        storage=JournalStorage(backend), study_name=wanted.stage.short, load_if_exists=True,
        direction=f"{wanted.metric.goal}imize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(wanted.grace, wanted.reduction))
    study.sampler = optuna.samplers.TPESampler(seed=10_000 * len(ended(study)) + worker)
    return study


def slots(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trial that counts of each slot, in order."""
    last = {trial.user_attrs.get("slot", -1): trial for trial in study.get_trials()}
    return [last[slot] for slot in sorted(last) if slot >= 0]


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have ended."""
    return [trial for trial in slots(study) if trial.state.is_finished()]


def recover(study: optuna.Study, worker: int | None = None) -> None:
    """Let trials that were lost wait again: all of them, or those of one worker RETRIES times."""
    for trial in slots(study):
        facts, is_running = trial.user_attrs, trial.state == TrialState.RUNNING
        # A trial that could not be kept has failed for Optuna, but not by what its notebook did.
        is_lost = is_running or trial.state == TrialState.FAIL and "failure" not in facts
        if not is_lost or worker not in (None, facts.get("worker")):
            continue
        if is_running:
            study.tell(trial.number, state=TrialState.FAIL)
        lost = facts.get("lost", 0)
        if worker is None or lost < RETRIES:
            study.enqueue_trial(trial.params, {"slot": facts["slot"], "lost": lost + 1})


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


def work(job: Job, number: int, backend: BaseJournalBackend, session: reaper.Session,
         threads: int = 1) -> None:
    """Execute trials, some at the same time, until none waits or the time is over.

    A worker that replaces a lost one has its `number`, and begins with the trial that it had.
    """
    with tracking.refused(STOPPED):
        store, study = tracking.client(), opened(job.wanted, backend, number)
        recover(study, number)
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
    name, tags = job.wanted.stage.short, job.tags | {"trial": slot}
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
                        f"{', '.join(numbers) or 'none'}. Say which one counts: "
                        f"sweep.{name}.metric in params.yaml, or metric.key in project.yaml.")
    return numbers[key]
