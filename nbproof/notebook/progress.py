"""What a person may see while a notebook works and no output may hold: steps, seconds, warnings of the moment.

It goes to the file NBPROOF_EVENTS, where whoever runs the notebook reads along; into the notebook itself, open in
JupyterLab, where a bar and curves grow and are gone at the end; or to a terminal.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

EVERY = 0.2  # seconds between two pictures of the live view
COLOURS = ("#4486d6", "#e07b39", "#3a9a5b", "#a05ac0")
_hushed = False


STEP = {"step", "steps", "unit", "metrics", "seconds"}  # what an event of `follow` has; any other one is words


def say(**event) -> None:
    """Tell whoever runs the notebook: a JSON line in NBPROOF_EVENTS, or a line on stderr where a person is watching."""
    if path := os.environ.get("NBPROOF_EVENTS"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
    elif words := line(event):
        print(words, file=sys.stderr)


def line(event: dict) -> str:
    """An event as a line for a person; nothing for a remedy, which the error tells."""
    if set(event) != STEP:
        return "" if "remedy" in event else "  ".join(
            [str(event["message"])] if "message" in event else [f"{name} {value}" for name, value in event.items()])
    metrics = [f"{name} {value:.4g}" for name, value in event["metrics"].items()]
    return "  ".join([f"{event['unit']} {event['step']}/{event['steps']}", *metrics, f"{event['seconds']} s"])


def in_jupyter():
    """The shell of a notebook that a person has open; None in a stage, a test or a script."""
    opened = os.environ.get("JPY_SESSION_NAME") and not os.environ.get("NBPROOF_EVENTS")
    return sys.modules["IPython"].get_ipython() if opened and "IPython" in sys.modules else None


def show(markdown: str) -> None:
    """Show Markdown as the output of a cell."""
    from IPython.display import Markdown, display

    display(Markdown(markdown))


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """What is followed inside says nothing: many small trainings are one thing to a reader."""
    global _hushed
    before, _hushed = _hushed, True
    try:
        yield
    finally:
        _hushed = before


class Follower:
    """Some work in steps, each of so many `parts`, drawn in the notebook if `live`, else told step by step."""

    def __init__(
        self, parts: list[int], unit: str, charts: dict[str, list[str]], logarithmic: set[str], live: bool,
    ):
        self.steps, self.parts, self.unit, self.charts, self.logarithmic = len(parts), parts, unit, charts, logarithmic
        self.history, self.done, self.started, self.display = [], 0, time.monotonic(), None
        if live:
            from IPython.display import display

            self.display = display(self._picture(), raw=True, display_id=True)
        self.drawn = self.started

    def part(self) -> None:
        """One part of a step, such as a batch, is done."""
        self.done += 1
        if self.display and time.monotonic() - self.drawn > EVERY:
            self._draw()

    def step(self, metrics: dict[str, float]) -> None:
        """One step is done, with these numbers."""
        self.history.append({name: float(value) for name, value in metrics.items()})
        self.done = sum(self.parts[: len(self.history)])
        if self.display:
            self._draw()
        elif not _hushed:
            seconds, step = round(time.monotonic() - self.started, 1), len(self.history)
            say(step=step, steps=self.steps, unit=self.unit, metrics=self.history[-1], seconds=seconds)

    def _draw(self) -> None:
        self.display.update(self._picture(), raw=True)
        self.drawn = time.monotonic()

    def _picture(self) -> dict[str, str]:
        whole, seconds = sum(self.parts), time.monotonic() - self.started
        words = f"{self.unit} {min(self.steps, len(self.history) + 1)} of {self.steps}"
        if self.done:
            words += f", {seconds:.0f} s of about {seconds * whole / self.done:.0f} s"
        charts = self.charts or {name: [name] for row in self.history[-1:] for name in row}
        drawn = [
            _chart(title, {name: [row.get(name, math.nan) for row in self.history] for name in names}, self.steps,
                   title in self.logarithmic) for title, names in charts.items()
        ]
        bar = f'<progress max="{whole}" value="{self.done}" style="width: 320px; vertical-align: middle"></progress>'
        return {"text/html": f'{bar} {words}<div style="display: flex; flex-wrap: wrap">{"".join(drawn)}</div>'}


@contextlib.contextmanager
def follow(
    steps: int, parts: int | list[int] = 1, unit: str = "epoch",
    charts: dict[str, list[str]] | None = None, logarithmic: set[str] = frozenset(),
) -> Iterator[Follower]:
    """Follow work of `steps` steps: call `part()` after each of a step's `parts`, `step(metrics)` after each step.

    `parts` is the same for all steps, or a list with one number for each.
    `charts` maps a title to the metrics drawn below it (left out: one chart for each metric); `logarithmic` holds
    the titles with a logarithmic axis. Work that an error ends leaves its picture on the screen.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    live = hasattr(shell, "kernel") and not os.environ.get("NBPROOF_EVENTS") and not _hushed
    each = parts if isinstance(parts, list) else [parts] * steps
    follower = Follower(each, unit, charts or {}, logarithmic, live)
    yield follower
    if follower.display:
        follower.display.update({}, raw=True)


def _chart(title: str, lines: dict[str, list[float]], steps: int, logarithmic: bool) -> str:
    """A small SVG chart of values by step, its horizontal axis as long as the whole work."""
    def is_drawn(value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not logarithmic)

    scale = math.log10 if logarithmic else float
    usable = [each for values in lines.values() for each in values if is_drawn(each)]
    low, high = (min(usable), max(usable)) if usable else (1.0, 1.0)
    spread = scale(high) - scale(low) or 1.0
    words, paths = [f"<b>{title}</b> {low:.4g} to {high:.4g}" if usable else f"<b>{title}</b>"], []
    for colour, (name, values) in zip(COLOURS * len(lines), lines.items()):
        points = [
            f"{300 * step / max(1, steps - 1):.1f},{100 - 100 * (scale(value) - scale(low)) / spread:.1f}"
            for step, value in enumerate(values) if is_drawn(value)
        ]
        if points:  # h0 draws a dot at the end, so that a single value is seen, too
            paths.append(f'<path d="M{" L".join(points)}h0" stroke="{colour}"/>')
            words.append(f'<span style="color: {colour}">{name} {values[-1]:.4g}</span>')
    frame = 'fill="none" stroke-width="2" stroke-linecap="round" style="border: solid gray; border-width: 0 0 1px 1px"'
    svg = f'<svg width="312" height="112" viewBox="-6 -6 312 112" {frame}>{"".join(paths)}</svg>'
    return f'<div style="margin: 8px">{" ".join(words)}<br>{svg}</div>'
