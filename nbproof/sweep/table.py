"""What a sweep shows while it works: trials running, done, stopped early, failed, the best so far, the time left."""

import sys
import time

from nbproof.project import Metric


class Table:
    """One line, drawn anew on a terminal; elsewhere a line for each trial that ended."""

    def __init__(self, trials: int, metric: Metric, minutes: float):
        self.trials, self.metric, self.until, self.drawn = trials, metric, time.monotonic() + 60 * minutes, 0.0
        self.running, self.counted, self.best = 0, {"done": 0, "stopped early": 0, "failed": 0}, None

    def ended(self, result: dict, tried: dict) -> None:
        """Count one trial."""
        self.counted[result["state"]] += 1
        if result["state"] == "done" and (self.best is None or self.metric.better(result["value"], self.best[0])):
            self.best = result["value"], tried

    def line(self) -> str:
        """The state in one line."""
        best = f"best {self.best[0]:.4g} with {listed(self.best[1])}" if self.best else "no result yet"
        counts = ", ".join(f"{number} {state}" for state, number in self.counted.items())
        left = max(0, self.until - time.monotonic()) / 60
        return (f"{sum(self.counted.values())} of {self.trials} trials: {self.running} running, {counts}; {best}; "
                f"at most {left:.0f} min left")

    def show(self, ended: bool = False) -> None:
        """Draw the line where a person sees it, at most twice a second."""
        if sys.stdout.isatty():
            if ended or time.monotonic() - self.drawn > 0.5:
                self.drawn = time.monotonic()
                print(f"\r\x1b[2K{self.line()}", end="", flush=True)
        elif ended:
            print(self.line(), flush=True)


def listed(values: dict) -> str:
    """Parameters with their values, as a person reads them."""
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in values.items())
