"""Proposes trials, has them executed by Ray's workers, and stops early those that fall behind."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from nbproof.cluster import ATTEMPTS, Lost, hired, needs, settings, taken
from nbproof.notebook.errors import Refused
from nbproof.notebook.files import write_whole
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
        kept, found = trial.user_attrs.get("result"), results.get(_name(trial))
        if kept:
            _tell(study, trial.number, kept)
            continue
        study.tell(trial.number, state=TrialState.FAIL)
        if found:
            study.add_trial(optuna.create_trial(
                state=STATES[found["state"]], value=found.get("value") if found["state"] != "failed" else None,
                params=trial.params, distributions=trial.distributions, user_attrs={"result": found},
                intermediate_values=trial.intermediate_values))
        else:
            study.enqueue_trial(trial.params)


def ended(study: optuna.Study) -> list[tuple[dict, dict]]:
    """The result of each trial that is over, with what it tried."""
    return [(trial.user_attrs["result"], trial.params) for trial in study.get_trials(deepcopy=False)
            if trial.state.is_finished() and "result" in trial.user_attrs]


def _name(trial) -> str:
    return f"{trial.number:05d}"


def _tell(study: optuna.Study, trial: optuna.trial.Trial | int, result: dict) -> None:
    value = result["value"] if result["state"] == "done" else None
    study.tell(trial, value, STATES[result["state"]])


@dataclass
class Attempt:
    """A trial at work: the worker that has it, how often it was begun, the last step that Optuna was told of."""

    trial: optuna.trial.Trial
    worker: object = None
    number: int = 0
    judged: int = 0
    stopped: bool = False


class Search:
    """The loop of the driver; `data` is a reference to what the notebook reads."""

    def __init__(self, wanted: Sweep, study: optuna.Study, job: dict, data):
        self.wanted, self.study, self.job, self.data = wanted, study, job, data
        self.distributions = wanted.distributions()
        self.arriving, self.idle, self.running, self.again = {}, [], {}, []
        self.table, self.silent = Table(wanted.trials, wanted.metric, wanted.minutes), False
        for result, tried in ended(study):
            self.table.ended(result, wanted.values(tried))

    @property
    def waiting(self) -> int:
        """Trials that still have to be started."""
        return self.wanted.trials - sum(self.table.counted.values()) - len(self.running)

    def run(self) -> None:
        """Until all trials have ended or the time is over. Whatever keeps a trial from being kept raises."""
        import ray

        while self.running or self.waiting > 0:
            if time.monotonic() < self.table.until:
                self._start()
            elif not self.running:
                return
            for attempt in self.running.values() if time.monotonic() >= self.table.until else ():
                self._stop(attempt)
            self.table.running = len(self.running)
            self.table.show()
            ready, _ = ray.wait([*self.arriving, *self.running], num_returns=1, timeout=1)
            for reference in ready:
                self._arrived(reference) if reference in self.arriving else self._heard(reference)

    def _start(self) -> None:
        """Give idle workers their trials; ask for more workers, one beyond what there is room for: a node may come."""
        import ray

        while self.idle and self.waiting > 0:
            attempt = self.again.pop() if self.again else Attempt(self.study.ask(self.distributions))
            attempt.worker, attempt.number = self.idle.pop(), attempt.number + 1
            tried = self.wanted.values(attempt.trial.params)
            self.running[attempt.worker.trial.remote(self.job, _name(attempt.trial), tried)] = attempt
        if self.waiting <= 0:
            self.arriving, self.idle = {}, []  # Ray ends a worker that nobody knows any more
        elif not self.arriving:
            free = ray.available_resources()
            room = min(int(free.get(kind, 0) // number) for kind, number in needs(self.wanted.fixed).items())
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
                                     "steps_planned": 0, "run_id": "", "failure": f"lost {ATTEMPTS} times: {error}"})
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
        if attempt.stopped or not isinstance(value, int | float) or not math.isfinite(value):
            return
        if event["step"] <= attempt.judged:  # of an attempt that was lost
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
        if result.get("unknown") and not self.table.counted["done"]:
            raise Refused(f"The sweep stopped: {result['failure']} Say which one counts (sweep.{self.wanted.name}"
                          ".metric in params.yaml, or metric.key in project.yaml).")
        attempt.trial.set_user_attr("result", result)
        _tell(self.study, attempt.trial, result)
        self.table.ended(result, self.wanted.values(attempt.trial.params))
        self.table.running = len(self.running)
        self.table.show(ended=True)
        if result["state"] == "done" and not attempt.judged and not self.silent:
            self.silent = True
            print(f"\nNo trial is stopped early: the progress of {self.wanted.stage.notebook} does not report "
                  f"{self.wanted.metric.key}.", flush=True)
