"""The study of a sweep: Optuna's journal, with as many slots as there are trials.

A slot is a trial that waits for a worker. One that was lost in the middle waits again, so a slot
may have several trials in the study, of which the last one counts.
"""

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from nbproof.sweep.space import Sweep

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


def recover(study: optuna.Study, store, worker: int | None = None) -> None:
    """Let trials that were lost wait again: all of them, or those of one worker RETRIES times.

    Their runs in the MLflow store are marked as KILLED.
    """
    for trial in slots(study):
        facts, is_running = trial.user_attrs, trial.state == TrialState.RUNNING
        # A trial that could not be kept has failed for Optuna, but not by what its notebook did.
        is_lost = is_running or trial.state == TrialState.FAIL and "failure" not in facts
        if not is_lost or worker not in (None, facts.get("worker")):
            continue
        if is_running:
            study.tell(trial.number, state=TrialState.FAIL)
        if "run_id" in facts:
            store.set_terminated(facts["run_id"], "KILLED")
        lost = facts.get("lost", 0)
        if worker is None or lost < RETRIES:
            study.enqueue_trial(trial.params, {"slot": facts["slot"], "lost": lost + 1})
