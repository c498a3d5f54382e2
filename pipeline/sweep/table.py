"""What a sweep shows while it works: trials running, done, stopped early, failed, the best so far, the time left."""

import sys
import time

from mlflow.exceptions import MlflowException
from ray.tune import Callback

from pipeline.tracking import without_credentials


class NotKept(BaseException):
    """A trial cannot be kept, tried again or not: the tracking store is gone, or a disk is full. (Tune would wrap an Exception.)"""


class Table(Callback):
    """One line, drawn anew in a terminal; elsewhere a line for every trial that ended."""

    def __init__(self, trials: int, metric: str, minutes: float):
        self.trials, self.metric, self.until = trials, metric, time.monotonic() + 60 * minutes
        self.running, self.done, self.early, self.failed = set(), set(), set(), set()
        self.lasts, self.best, self.drawn = {}, None, 0.0

    def on_trial_start(self, iteration, trials, trial, **info) -> None:
        self.running.add(trial.trial_id)
        self._show(False)

    def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
        self.lasts[trial.trial_id] = result
        if result.get("done") and not result.get("failed") and (self.best is None or result[self.metric] > self.best[0]):
            self.best = result[self.metric], trial.config
        self._show(False)

    def on_trial_complete(self, iteration, trials, trial, **info) -> None:
        self.running.discard(trial.trial_id)
        last = self.lasts.get(trial.trial_id) or trial.last_result or {}
        kind = self.failed if last.get("failed") else self.done if last.get("run_id") and last.get("done") and "failure" in last else self.early
        kind.add(trial.trial_id)
        self._show(True)

    def on_trial_error(self, iteration, trials, trial, **info) -> None:
        self.running.discard(trial.trial_id)
        self.failed.add(trial.trial_id)
        self._show(True)
        if reason := _not_kept(trial):
            raise NotKept(reason)

    def line(self) -> str:
        """The state in one line."""
        best = f"best {self.best[0]:.4f} with {', '.join(f'{name} {short(value)}' for name, value in self.best[1].items())}" if self.best else "no result yet"
        ended = len(self.done) + len(self.early) + len(self.failed)
        left = max(0, self.until - time.monotonic())
        return (
            f"{ended} of {self.trials} trials: {len(self.running)} running, {len(self.done)} done, {len(self.early)} stopped early, "
            f"{len(self.failed)} failed; {best}; at most {left / 60:.0f} min left"
        )

    def _show(self, ended: bool) -> None:
        if sys.stdout.isatty():
            if ended or time.monotonic() - self.drawn > 0.5:
                self.drawn = time.monotonic()
                print(f"\r\x1b[2K{self.line()}", end="", flush=True)
        elif ended:
            print(self.line(), flush=True)


def _not_kept(trial) -> str:
    """Why a trial that Tune gave up could not be kept; empty where its worker was lost."""
    try:
        cause = getattr(trial.get_pickled_error(), "cause", None)
    except (EOFError, OSError):
        return "the disk is full."
    if not isinstance(cause, MlflowException | OSError):
        return ""
    return "the disk is full." if "disk is full" in str(cause) or "No space left" in str(cause) else without_credentials(str(cause))


def short(value) -> str:
    """A value as a person reads it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
