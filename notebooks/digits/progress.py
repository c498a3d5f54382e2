"""What a person may see while a notebook works, and no output may hold: seconds, epochs, warnings of the moment.

Three places to say it: PROGRESS_FILE, where whoever runs the notebook reads along; the notebook itself, open in JupyterLab,
where a bar and a curve grow while a net is trained and are gone when it is; a terminal.
"""

import contextlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from IPython import get_ipython
from IPython.display import HTML, display

EVERY = 0.2  # seconds between two looks of the live view
_hushed = False


def say(**event) -> None:
    """Tell whoever runs the notebook: one JSON line appended to PROGRESS_FILE, or a line on stderr where a person is watching."""
    if path := os.environ.get("PROGRESS_FILE"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
    else:
        print("  ".join(f"{key} {value}" if key != "message" else value for key, value in event.items()), file=sys.stderr)


def without_credentials(text: str) -> str:
    """`text` with the user and password cut out of every address in it."""
    return re.sub(r"://[^/\s]*@", "://", text)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """What is trained inside says nothing: many small trainings are one thing to a reader."""
    global _hushed
    before, _hushed = _hushed, True
    try:
        yield
    finally:
        _hushed = before


class Said:
    """A training of `epochs` epochs of `steps` steps, said epoch by epoch."""

    def __init__(self, epochs: int, steps: int):
        self.epochs, self.steps, self.started, self.history = epochs, steps, time.monotonic(), []

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def step(self) -> None:
        """One step is done."""

    def epoch(self, metrics: dict[str, float]) -> None:
        """One epoch is done: its train_loss, validation_loss and validation_accuracy."""
        self.history.append(metrics)
        if not _hushed:
            say(epoch=f"{len(self.history)}/{self.epochs}", accuracy=f"{metrics['validation_accuracy']:.4f}", seconds=round(self.seconds, 1))

    def end(self) -> None:
        """The training came to its end."""


class Shown(Said):
    """The same in the notebook: one display that is drawn anew, and empty at the end; what else the cell shows is not touched."""

    def __init__(self, epochs: int, steps: int):
        super().__init__(epochs, steps)
        self.done, self.drawn = 0, time.monotonic()
        self.handle = display(HTML(self._picture()), display_id=True)

    def step(self) -> None:
        self.done += 1
        if time.monotonic() - self.drawn > EVERY:
            self._draw()

    def epoch(self, metrics: dict[str, float]) -> None:
        self.history.append(metrics)
        self._draw()

    def end(self) -> None:
        self.handle.update({}, raw=True)

    def _draw(self) -> None:
        self.handle.update(HTML(self._picture()))
        self.drawn = time.monotonic()

    def _picture(self) -> str:
        whole = self.epochs * self.steps
        words = [f"epoch {min(self.epochs, self.done // self.steps + 1)} of {self.epochs}"]
        if self.history:
            words.append(f"accuracy {self.history[-1]['validation_accuracy']:.4f}")
        if self.done:
            words.append(f"{self.seconds:.0f} s of about {self.seconds * whole / self.done:.0f} s")
        return (
            f'<div class="training" style="max-width: 660px"><div style="display: flex; gap: 1em; align-items: center">'
            f'<progress max="{whole}" value="{self.done}" style="flex: 1; accent-color: #4486d6"></progress>'
            f'<span style="font-variant-numeric: tabular-nums; min-width: 24em">{" · ".join(words)}</span></div>'
            f'<div style="display: flex; gap: 1em; margin-top: 8px">'
            f'{_panel({name: [row[f"{name}_loss"] for row in self.history] for name in ("train", "validation")}, self.epochs, "cross-entropy [nats]", True)}'
            f'{_panel({"": [row["validation_accuracy"] for row in self.history]}, self.epochs, "validation accuracy", False)}</div></div>'
        )


@contextlib.contextmanager
def training(epochs: int, steps: int) -> Iterator[Said]:
    """Follow a training: tell what it yields of every `step()` and every `epoch(metrics)`. An interrupted one stays on the screen."""
    live = not os.environ.get("PROGRESS_FILE") and not _hushed and hasattr(get_ipython(), "kernel")
    follower = (Shown if live else Said)(epochs, steps)
    yield follower
    follower.end()


def _panel(series: dict[str, list[float]], epochs: int, title: str, logarithmic: bool) -> str:
    """A small SVG chart of values by epoch, its horizontal axis as long as the whole training."""
    left, right, top, bottom = 52, 312, 22, 128
    scale = math.log10 if logarithmic else float
    values = [scale(max(value, 1e-9)) for line in series.values() for value in line]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    spread = max(high - low, 1e-3)
    low, high = low - 0.08 * spread, high + 0.08 * spread

    def across(epoch: float) -> float:
        return left + (right - left) * (epoch - 1) / max(1, epochs - 1)

    def up(value: float) -> float:
        return bottom - (bottom - top) * (scale(max(value, 1e-9)) - low) / (high - low)

    parts = [f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#757a82"/><text x="{left}" y="12">{title}</text>']
    parts += [f'<text x="{across(each):.0f}" y="{bottom + 15}" text-anchor="middle">{each}</text>' for each in sorted({1, epochs})]
    for mark in (low + 0.08 * spread, high - 0.08 * spread) if values else ():
        number = 10**mark if logarithmic else mark
        parts.append(f'<text x="{left - 6}" y="{up(number) + 4:.0f}" text-anchor="end">{number:.3g}</text>')
    for place, ((name, line), colour) in enumerate(zip(series.items(), ("#4486d6", "#e07b39") if len(series) > 1 else ("#e07b39",))):
        points = [(across(epoch), up(value)) for epoch, value in enumerate(line, 1)]
        parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in points]
        parts.append(f'<text x="{right}" y="{top + 4 + 14 * place}" text-anchor="end" style="fill: {colour}">{name}</text>')
    return f'<svg width="320" height="150" viewBox="0 0 320 150" style="font: 11px sans-serif; fill: #757a82">{"".join(parts)}</svg>'
