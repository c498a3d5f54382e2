"""Steps, seconds and sentences that a person may see while a notebook works; no output has them.

In a stage they are messages of the kernel to the program that runs the notebook; in a notebook
that a person has open, a bar and curves that are gone at the end; elsewhere lines on stderr.
"""

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator

EVERY = 0.2  # seconds between two pictures of the live view
COLOURS = ("#4486d6", "#e07b39", "#3a9a5b", "#a05ac0")
STEP = {"step", "steps", "unit", "metrics", "seconds"}  # the keys of an event of `follow`
EVENT = "nbproof"  # the type of the kernel's messages that carry events
_hushed = False


def say(**event) -> None:
    """Send an event: to the program that runs this stage, or as a line to a person's terminal."""
    shell = _shell()
    if os.environ.get("NBPROOF_OUTPUT") and hasattr(shell, "kernel"):
        shell.kernel.send_response(shell.kernel.iopub_socket, EVENT, event)
    elif not os.environ.get("NBPROOF_QUIET") and (words := line(event)):
        print(words, file=sys.stderr)


def line(event: dict) -> str:
    """Return an event as a line for a person; empty for one that is not for people."""
    if set(event) == STEP:
        metrics = [f"{name} {value:.4g}" for name, value in event["metrics"].items()]
        count = f"{event['unit']} {event['step']}/{event['steps']}"
        return "  ".join([count, *metrics, f"{event['seconds']:.1f} s"])
    if "message" in event:
        return str(event["message"])
    internal = {"fallback", "cell", "files", "arithmetic"} & set(event)
    return "" if internal else "  ".join(f"{name} {value}" for name, value in event.items())


def _shell():
    """Return IPython's shell, None outside of it."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def in_jupyter():
    """Return the shell of a notebook that a person has open; None in a stage or a script."""
    hidden = os.environ.get("NBPROOF_OUTPUT") or os.environ.get("NBPROOF_QUIET")
    shell = _shell()
    return shell if hasattr(shell, "kernel") and not hidden else None


def show(markdown: str) -> None:
    """Show Markdown as the output of a cell."""
    from IPython.display import Markdown, display

    display(Markdown(markdown))


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Report no steps inside the block: to a reader, many small trainings are one thing."""
    global _hushed
    before, _hushed = _hushed, True
    try:
        yield
    finally:
        _hushed = before


class Follower:
    """Report work in steps of so many `parts`: drawn if `live`, else as an event for each step."""

    def __init__(self, parts: list[int], unit: str, charts: dict[str, list[str]],
                 logarithmic: set[str], live: bool):
        self.parts, self.unit, self.charts, self.logarithmic = parts, unit, charts, logarithmic
        self.history, self.done, self.started = [], 0, time.monotonic()
        self.display, self.drawn = None, self.started
        if live:
            from IPython.display import display

            self.display = display(self._picture(), raw=True, display_id=True)

    def part(self) -> None:
        """Count one part of a step, such as a batch."""
        self.done += 1
        if self.display and time.monotonic() - self.drawn > EVERY:
            self._draw()

    def step(self, metrics: dict[str, float]) -> None:
        """Count one step, with its numbers."""
        self.history.append({name: float(value) for name, value in metrics.items()})
        self.done = sum(self.parts[: len(self.history)])
        if self.display:
            self._draw()
        elif not _hushed:
            seconds = round(time.monotonic() - self.started, 1)
            say(step=len(self.history), steps=len(self.parts), unit=self.unit,
                metrics=self.history[-1], seconds=seconds)

    def _draw(self) -> None:
        self.display.update(self._picture(), raw=True)
        self.drawn = time.monotonic()

    def _picture(self) -> dict[str, str]:
        """Return the bar and the charts as they are now, as HTML."""
        whole, seconds, steps = sum(self.parts), time.monotonic() - self.started, len(self.parts)
        words = f"{self.unit} {min(steps, len(self.history) + 1)} of {steps}"
        if self.done:
            words += f", {seconds:.0f} s of about {seconds * whole / self.done:.0f} s"
        charts = self.charts or {name: [name] for row in self.history[-1:] for name in row}
        drawn = "".join(self._chart(title, names) for title, names in charts.items())
        bar = f'<progress max="{whole}" value="{self.done}" style="width: 320px"></progress>'
        row = f'<div style="display: flex; flex-wrap: wrap">{drawn}</div>'
        return {"text/html": f"{bar} {words}{row}"}

    def _chart(self, title: str, names: list[str]) -> str:
        """Return a small SVG chart of `names` by step, as wide as the whole work."""
        logarithmic = title in self.logarithmic
        scale = math.log10 if logarithmic else float
        lines = {name: [(step, scale(row[name])) for step, row in enumerate(self.history)
                        if math.isfinite(row.get(name, math.nan)) and
                        (row[name] > 0 or not logarithmic)] for name in names}
        values = [value for points in lines.values() for _, value in points] or [0.0]
        low, spread = min(values), max(values) - min(values) or 1.0
        words, paths = [f"<b>{title}</b>"], []
        for colour, (name, points) in zip(COLOURS * len(lines), lines.items()):
            across = [f"{300 * step / max(1, len(self.parts) - 1):.1f},"
                      f"{100 - 100 * (value - low) / spread:.1f}" for step, value in points]
            if across:  # h0 draws a dot at the end, so that a single value can be seen
                paths.append(f'<path d="M{" L".join(across)}h0" stroke="{colour}"/>')
                latest = self.history[points[-1][0]][name]
                words.append(f'<span style="color: {colour}">{name} {latest:.4g}</span>')
        frame = ('<svg width="312" height="112" viewBox="-6 -6 312 112" fill="none" '
                 'stroke-width="2" stroke-linecap="round" '
                 'style="border: solid gray; border-width: 0 0 1px 1px">')
        svg = f'{frame}{"".join(paths)}</svg>'
        return f'<div style="margin: 8px">{" ".join(words)}<br>{svg}</div>'


@contextlib.contextmanager
def follow(steps: int, parts: int | list[int] = 1, unit: str = "epoch",
           charts: dict[str, list[str]] | None = None,
           logarithmic: set[str] = frozenset()) -> Iterator[Follower]:
    """Follow work of `steps` steps: call `part()` after each part, `step(metrics)` after each step.

    `parts` is the same for all steps, or a list with a number for each. `charts` maps a title to
    the metrics drawn below it (default: a chart for each metric); `logarithmic` names the titles
    with a logarithmic axis. Work that an error ends leaves its picture on the screen.
    """
    live = in_jupyter() is not None and not _hushed
    counts = parts if isinstance(parts, list) else [parts] * steps
    follower = Follower(counts, unit, charts or {}, logarithmic, live)
    yield follower
    if follower.display:
        follower.display.update({}, raw=True)
