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
from typing import Self

EVERY = 0.2  # seconds between two pictures of the live view
COLOURS = ("#4486d6", "#e07b39", "#3a9a5b", "#a05ac0")
STEP = {"step", "steps", "unit", "metrics", "seconds"}  # the keys of an event of `follow`
KEEP_WIDTH = 'vector-effect="non-scaling-stroke" stroke-width="2" stroke-linecap="round"'
EVENT = "nbproof"  # the type of the kernel's messages that carry events
_hushed = False


def say(**event) -> None:
    """Send an event: to the program that runs this stage, or as a line to a person's terminal."""
    kernel = _kernel()
    if os.environ.get("NBPROOF_OUTPUT") and kernel:
        kernel.send_response(kernel.iopub_socket, EVENT, event)
    elif not os.environ.get("NBPROOF_QUIET") and (words := line(event)):
        print(words, file=sys.stderr)


def line(event: dict) -> str:
    """Return an event as a line for a person; empty for one that is not for people."""
    if set(event) == STEP:
        metrics = [f"{name} {value:.4g}" for name, value in event["metrics"].items()]
        count = f"{event['unit']} {event['step']}/{event['steps']}"
        return "  ".join([count, *metrics, f"{event['seconds']:.1f} s"])
    return event.get("message", "")


def _kernel():
    """Return the kernel that runs this code; None in a script or a terminal."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None)


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


class follow:
    """Follow work of `steps` steps: call `part()` after each part, `step(metrics)` after each step.

    `parts` is the same for all steps, or a list with a number for each. `charts` maps a title to
    the metrics drawn below it (default: a chart for each metric); `logarithmic` names the titles
    with a logarithmic axis. Work that an error ends leaves its picture on the screen.
    """

    def __init__(self, steps: int, parts: int | list[int] = 1, unit: str = "epoch",
                 charts: dict[str, list[str]] | None = None,
                 logarithmic: set[str] = frozenset()):
        self.parts = parts if isinstance(parts, list) else [parts] * steps
        self.unit, self.charts, self.logarithmic = unit, charts or {}, logarithmic
        self.history, self.done, self.display = [], 0, None
        self.started = self.drawn = time.monotonic()

    def __enter__(self) -> Self:
        hidden = os.environ.get("NBPROOF_OUTPUT") or os.environ.get("NBPROOF_QUIET") or _hushed
        if _kernel() and not hidden:
            from IPython.display import display

            self.display = display(self._picture(), raw=True, display_id=True)
        return self

    def __exit__(self, error, *_) -> None:
        if self.display and not error:
            self.display.update({}, raw=True)

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
        row = f'<div style="display: flex; flex-wrap: wrap; gap: 16px">{drawn}</div>'
        return {"text/html": f"{bar} {words}{row}"}

    def _chart(self, title: str, names: list[str]) -> str:
        """Return a small SVG chart of `names` by step, as wide as the whole work."""
        scale = math.log10 if title in self.logarithmic else float
        words, paths, heights = f"<b>{title}</b>", "", []
        for colour, name in zip(COLOURS * len(names), names):
            values = [(step, row[name]) for step, row in enumerate(self.history)
                      if math.isfinite(row.get(name, math.nan))]
            points = [(step, -scale(value)) for step, value in values
                      if value > 0 or scale is float]
            if points:  # h.01 draws a dot at the end, so that a single value can be seen
                heights += [height for _, height in points]
                path = " L".join(f"{step},{height:.6g}" for step, height in points)
                paths += f'<path d="M{path}h.01" stroke="{colour}" {KEEP_WIDTH}/>'
                words += f' <span style="color: {colour}">{name} {values[-1][1]:.4g}</span>'
        top, bottom = min(heights, default=0), max(heights, default=0)
        # Curves are drawn in the values' own units, and this box stretches them to its size.
        box = f"0 {top} {max(1, len(self.parts) - 1)} {bottom - top or 1}"
        return (f'<div>{words}<br><svg viewBox="{box}" preserveAspectRatio="none" fill="none" '
                'width="312" height="112" style="padding: 6px; overflow: visible; '
                f'border: solid gray; border-width: 0 0 1px 1px">{paths}</svg></div>')
