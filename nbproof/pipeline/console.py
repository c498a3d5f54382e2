"""What a run shows while it works: on a terminal a table that lives, elsewhere plain lines."""

import contextlib
import threading
import time

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from nbproof.pipeline import config
from nbproof.pipeline.dag import Stage


class Lines:
    """Line after line, for a log, a pipe or a simple terminal."""

    events = False  # whether stages tell in JSON how far they are

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def line(self, text: str) -> None:
        print(text, flush=True)

    def note(self, name: str, **facts) -> None:
        """What is new of the stage `name`; lines of its own say it."""


class LiveTable:
    """A row a stage: its state, cell, step and metric, the seconds so far and, by its steps, those that are left."""

    events = True

    def __init__(self, found: dict[str, Stage], names: set[str], console: Console):
        self.guard, self.metric = threading.Lock(), config.load().metric.key
        self.rows = {name: {"short": stage.short, "state": "waits"} for name, stage in found.items() if name in names}
        self.live = Live(console=console, get_renderable=self.table, refresh_per_second=4)

    def __enter__(self):
        self.live.__enter__()
        return self

    def __exit__(self, *error):
        self.live.__exit__(*error)

    def line(self, text: str) -> None:
        self.live.console.print(text, markup=False, highlight=False)

    def note(self, name: str, **facts) -> None:
        with self.guard:
            row = self.rows[name]
            if "step" in facts:
                row["at"] = facts.pop("seconds")
            if facts.get("state") == "runs":
                row["since"] = time.monotonic()
            elif "state" in facts:
                row["seconds"] = time.monotonic() - row.get("since", time.monotonic())
            row.update(facts)

    def table(self) -> Table:
        """The table as it is now."""
        with self.guard:
            ended = sum(row["state"] in ("done", "failed") for row in self.rows.values())
            table = Table(box=None, caption=f"{ended} of {len(self.rows)} stages", caption_justify="left")
            for title in ("stage", "", "cell", "step", self.metric, "elapsed", "left"):
                table.add_column(title, justify="left" if title in ("stage", "") else "right", no_wrap=True)
            for row in self.rows.values():
                table.add_row(*self._cells(row), style={"waits": "dim", "failed": "red"}.get(row["state"]))
        return table

    def _cells(self, row: dict) -> list[str]:
        seconds = row.get("seconds") or (time.monotonic() - row["since"] if "since" in row else None)
        cell = f"{row['cell']} of {row['cells']}" if "cell" in row else ""
        step = f"{row['unit']} {row['step']} of {row['steps']}" if "step" in row else ""
        value = row.get("metrics", {}).get(self.metric)
        left = ""
        if row["state"] == "runs" and 0 < row.get("step", 0) < row["steps"]:
            left = f"~{_shown(row['at'] / row['step'] * row['steps'] - row['at'])}"
        shown = ["" if value is None else f"{value:.4g}", "" if seconds is None else _shown(seconds), left]
        return [escape(each) for each in (row["short"], row["state"], cell, step, *shown)]


def _shown(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


def screen(found: dict[str, Stage], names: set[str]) -> contextlib.AbstractContextManager:
    """Where a run of the stages `names` shows how far it is."""
    console = Console()
    lives = names and console.is_terminal and not console.is_dumb_terminal
    return LiveTable(found, names, console) if lives else Lines()
