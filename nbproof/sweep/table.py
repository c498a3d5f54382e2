"""What a sweep shows while it works: trials running, done, stopped early, failed, the best so far, the time left."""

import sys
import time

from nbproof.sweep.space import Sweep


class Table:
    """One line, drawn anew on a terminal; elsewhere a line for each trial that ended."""

    def __init__(self, wanted: Sweep):
        self.wanted, self.drawn = wanted, 0.0

    def line(self, results: list[dict], running: int, until: float) -> str:
        """The state in one line; `until` as time.monotonic() has it."""
        best = best_of(self.wanted, results)
        said = f"best {best['value']:.4g} with {listed(best['tried'])}" if best else "no result yet"
        counts = ", ".join(f"{number} {state}" for state, number in counted(results).items())
        return (f"{len(results)} of {self.wanted.trials} trials: {running} running, {counts}; {said}; at most "
                f"{max(0, until - time.monotonic()) / 60:.0f} min left")

    def show(self, results: list[dict], running: int, until: float, ended: bool) -> None:
        """Draw the line where a person sees it, at most twice a second."""
        if sys.stdout.isatty() and (ended or time.monotonic() - self.drawn > 0.5):
            self.drawn = time.monotonic()
            print(f"\r\x1b[2K{self.line(results, running, until)}", end="", flush=True)
        elif ended:
            print(self.line(results, running, until), flush=True)


def counted(results: list[dict]) -> dict[str, int]:
    """How many trials ended in which way."""
    return {state: sum(result["state"] == state for result in results) for state in ("done", "stopped early", "failed")}


def best_of(wanted: Sweep, results: list[dict]) -> dict | None:
    """The best result of a trial that ran to its end; of equals that of the earliest."""
    done = [result for result in results if result["state"] == "done"]
    return min(done, key=lambda each: (wanted.metric.best_first(each["value"]), each["trial"]), default=None)


def listed(values: dict) -> str:
    """Parameters with their values, as a person reads them."""
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in values.items())
