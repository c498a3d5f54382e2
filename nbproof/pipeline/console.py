"""What a run shows while it works: on a terminal a live table, elsewhere plain lines."""

from collections.abc import Iterable

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nbproof.notebook import progress
from nbproof.pipeline import config
from nbproof.pipeline.dag import Stage


class Lines:
    """Line after line, for a log, a pipe or a simple terminal."""

    def __init__(self, stages: list[Stage]):
        self.short = {stage.name: stage.short for stage in stages}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def line(self, text: str) -> None:
        """Print one line."""
        print(text, flush=True)

    def note(self, name: str, **facts) -> None:
        """Print a step of the stage `name`; its state and its cell have no line."""
        if "step" in facts:
            self.line(f"{self.short[name]}: {progress.line(facts)}")


class LiveTable:
    """A row a stage: its state, cell, step and metric, the time so far and the time left."""

    def __init__(self, stages: list[Stage], console: Console):
        self.metric = config.load().metric.key
        fields = dict.fromkeys(("state", "cell", "step", "metric"), "")
        columns = [f"{{task.fields[{name}]}}" for name in fields]
        texts = [TextColumn(column, markup=False) for column in ("{task.description}", *columns)]
        times = TimeElapsedColumn(), TimeRemainingColumn()
        self.progress = Progress(*texts, *times, console=console)
        fields["state"] = "waits"
        self.rows = {stage.name: self.progress.add_task(stage.short, False, None, **fields)
                     for stage in stages}

    def __enter__(self):
        self.progress.start()
        return self

    def __exit__(self, *error):
        self.progress.stop()

    def line(self, text: str) -> None:
        """Print one line above the table."""
        self.progress.console.print(text, markup=False, highlight=False)

    def note(self, name: str, **facts) -> None:
        """Show what is new of the stage `name`: `state`, `cell` of `cells`, or an event of
        `progress.follow`. Any thread may call this."""
        row, shown = self.rows[name], {}
        if "state" in facts:
            shown["state"] = facts["state"]
            is_start = facts["state"] == "runs"
            (self.progress.start_task if is_start else self.progress.stop_task)(row)
        if "cell" in facts:
            shown["cell"] = f"cell {facts['cell']} of {facts['cells']}"
        if "step" in facts:
            shown["step"] = f"{facts['unit']} {facts['step']} of {facts['steps']}"
            shown |= {"completed": facts["step"], "total": facts["steps"]}
            if (value := facts["metrics"].get(self.metric)) is not None:
                shown["metric"] = f"{self.metric} {value:.4g}"
        self.progress.update(row, **shown)


def screen(found: dict[str, Stage], names: Iterable[str]) -> Lines | LiveTable:
    """Return where a run of the stages `names` shows how far it is, a context manager."""
    console, stages = Console(), [stage for name, stage in found.items() if name in set(names)]
    is_live = stages and console.is_terminal and not console.is_dumb_terminal
    return LiveTable(stages, console) if is_live else Lines(stages)
