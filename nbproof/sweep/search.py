"""Proposes trials, has them executed by Ray's workers, and stops early those that fall behind."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import write_whole
from nbproof.sweep.cluster import ATTEMPTS, Lost, hired, needs, settings, taken
from nbproof.sweep.space import Sweep
from nbproof.sweep.table import Table
from nbproof.sweep.trial import Trials

STATES = {"done": TrialState.COMPLETE, "stopped early": TrialState.PRUNED, "failed": TrialState.FAIL}


def study_of(wanted: Sweep, folder: Path) -> optuna.Study:
    """The study in the sweep's folder, made where there is none. The same space is searched in the same way."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    log = folder / "study.log"
    if log.exists():  # a full disk can leave a part of a line, a kill a lock; no other process has this folder
        whole = log.read_bytes()
        write_whole(log, whole[: whole.rfind(b"\n") + 1])
        Path(f"{log}.lock").unlink(missing_ok=True)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(log), JournalFileOpenLock(str(log))))
    study = optuna.create_study(
        storage=storage, study_name=wanted.name, load_if_exists=True, direction=f"{wanted.metric.goal}imize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(wanted.grace, wanted.reduction),
    )
    study.sampler = optuna.samplers.TPESampler(seed=len(study.get_trials(deepcopy=False)))  # 0 would propose all again
    return study


def recover(study: optuna.Study, results: dict[str, dict]) -> None:
    """What ran when a driver ended: a trial with a result (by its name) is over, another one comes again, first."""
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        if result := results.get(_name(trial)):
            _tell(study, trial.number, result)
        else:
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)


def _name(trial) -> str:
    return f"{trial.number:05d}"


def _tell(study: optuna.Study, trial: optuna.trial.Trial | int, result: dict) -> None:
    study.tell(trial, result["value"] if result["state"] == "done" else None, STATES[result["state"]])


@dataclass
class Attempt:
    """A trial at work: the worker that has it, how often it was begun, the last step that Optuna was told of."""

    trial: optuna.trial.Trial
    worker: object = None
    number: int = 0
    judged: int = 0
    stopped: bool = False


class Search:
    """The loop of the driver; `data` is a reference to what the notebook reads; each trial adds to `results`."""

    def __init__(self, wanted: Sweep, study: optuna.Study, job: dict, data, results: list[dict]):
        self.wanted, self.study, self.job, self.data, self.results = wanted, study, job, data, results
        self.distributions = wanted.distributions()
        self.arriving, self.idle, self.running, self.again = {}, [], {}, []
        self.until, self.table = time.monotonic() + 60 * wanted.minutes, Table(wanted)

    @property
    def waiting(self) -> int:
        """Trials that still have to be started."""
        return self.wanted.trials - len(self.results) - len(self.running)

    def run(self) -> None:
        """Until all trials have ended or the time is over. Whatever keeps a trial from being kept raises."""
        import ray

        while self.running or (self.waiting > 0 and time.monotonic() < self.until):
            if time.monotonic() < self.until:
                self._start()
            else:
                for attempt in self.running.values():
                    self._stop(attempt)
            self._show()
            ready, _ = ray.wait([*self.arriving, *self.running], num_returns=1, timeout=1)
            for reference in ready:
                self._arrived(reference) if reference in self.arriving else self._heard(reference)

    def _show(self, ended: bool = False) -> None:
        self.table.show(self.results, len(self.running), self.until, ended)

    def _start(self) -> None:
        """Give idle workers their trials; ask for more workers, one beyond what there is room for: a node may come."""
        import ray

        while self.idle and self.waiting > 0:
            attempt = self.again.pop() if self.again else Attempt(self.study.ask(self.distributions))
            attempt.worker, attempt.number, attempt.stopped = self.idle.pop(), attempt.number + 1, False
            tried = self.wanted.values(attempt.trial.params)
            self.running[attempt.worker.trial.remote(self.job, _name(attempt.trial), tried)] = attempt
        if self.waiting <= 0:
            self.arriving, self.idle = {}, []  # Ray ends a worker that nobody knows any more
        elif not self.arriving:
            resource, number = needs(self.wanted.fixed)
            room = int(ray.available_resources().get(resource, 0) // number)
            for _ in range(min(self.waiting, max(1, room))):
                worker = hired(Trials, self.wanted.fixed)
                self.arriving[worker.prepare.remote(self.data, settings())] = worker

    def _arrived(self, reference) -> None:
        worker = self.arriving.pop(reference)
        try:
            taken(reference)
        except Lost:
            return  # its node is gone: another one is asked for
        self.idle.append(worker)

    def _heard(self, events) -> None:
        attempt = self.running[events]
        try:
            event = taken(next(events))
        except Lost as error:
            del self.running[events]
            if attempt.number < ATTEMPTS:
                self.again.append(attempt)
            else:
                self._keep(attempt, {"trial": _name(attempt.trial), "state": "failed", "steps_done": 0, "seconds": 0.0,
                                     "steps_planned": 0, "run_id": "", "failure": f"lost {ATTEMPTS} times: {error}",
                                     "tried": self.wanted.values(attempt.trial.params)})
            return
        if "result" in event:
            del self.running[events]
            self.idle.append(attempt.worker)
            self._keep(attempt, event["result"])
        else:
            self._judge(attempt, event)

    def _judge(self, attempt: Attempt, event: dict) -> None:
        """Tell Optuna of a step; a trial that falls behind is stopped."""
        value = event.get("metrics", {}).get(self.wanted.metric.key)
        known = event["step"] <= attempt.judged  # from an attempt that was lost
        if known or attempt.stopped or not isinstance(value, int | float) or not math.isfinite(value):
            return
        attempt.judged = event["step"]
        attempt.trial.report(value, event["step"])
        if event["step"] < event["steps"] and attempt.trial.should_prune():
            self._stop(attempt)

    def _stop(self, attempt: Attempt) -> None:
        if not attempt.stopped:
            attempt.stopped = True
            attempt.worker.stop.remote(_name(attempt.trial))

    def _keep(self, attempt: Attempt, result: dict) -> None:
        """Tell Optuna and the terminal how a trial ended."""
        before = {each["state"] for each in self.results}
        if result.get("unknown") and "done" not in before:
            raise UserError(f"The sweep stopped: {result['failure']} Say which one counts (sweep.{self.wanted.name}"
                          ".metric in params.yaml, or metric.key in project.yaml).")
        _tell(self.study, attempt.trial, result)
        self.results.append(result)
        self._show(ended=True)
        if result["state"] == "done" and "done" not in before and not attempt.judged:
            print(f"\nNo trial is stopped early: the progress of {self.wanted.stage.notebook} does not report "
                  f"{self.wanted.metric.key}.", flush=True)
