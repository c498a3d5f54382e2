"""What a run shows while it works: on a terminal a live table, elsewhere plain lines."""

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nbproof.notebook import progress
from nbproof.pipeline import config
from nbproof.pipeline.dag import Stage
from nbproof.pipeline.numbers import number

FIELDS = ("state", "cell", "step", "metric")


class Screen:
    """A row a stage: its state, cell, step and metric, the time so far and the time left.

    In a log, a pipe or a simple terminal: a line a step.
    """

    def __init__(self, stages: dict[str, Stage], names: set[str]):
        console = Console()
        self.is_live = console.is_terminal and not console.is_dumb_terminal
        self.metric = config.load().metric.key
        columns = ["{task.description}", *(f"{{task.fields[{name}]}}" for name in FIELDS)]
        texts = [TextColumn(column, markup=False) for column in columns]
        self.table = Progress(*texts, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
        waits = dict.fromkeys(FIELDS, "") | {"state": "waits"}
        self.short = {name: stage.short for name, stage in stages.items() if name in names}
        self.rows = {name: self.table.add_task(short, start=False, total=None, **waits)
                     for name, short in self.short.items()}

    def __enter__(self):
        if self.is_live:
            self.table.start()
        return self

    def __exit__(self, *error):
        if self.is_live:
            self.table.stop()

    def line(self, text: str) -> None:
        """Print one line, above the table."""
        if self.is_live:
            self.table.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def note(self, name: str, **facts) -> None:
        """Show what is new of the stage `name`: `state`, `cell` of `cells`, or an event of
        `progress.follow`. Any thread may call this."""
        row, shown = self.rows[name], {}
        if "state" in facts:
            shown["state"] = facts["state"]
            if facts["state"] == "done" and self.metric:  # which may differ from the last step's
                value = config.load().metrics(self.short[name]).get(self.metric)
                shown |= {} if value is None else {"metric": f"{self.metric} {number(value)}"}
            is_start = facts["state"] == "runs"
            if is_start and not self.is_live:
                self.line(f"{self.short[name]}: starts")
            (self.table.start_task if is_start else self.table.stop_task)(row)
        if "cell" in facts:
            shown["cell"] = f"cell {facts['cell']} of {facts['cells']}"
        if "step" in facts:
            shown |= {"completed": facts["step"], "total": facts["steps"],
                      "step": f"{facts['unit']} {facts['step']} of {facts['steps']}"}
            if (value := facts["metrics"].get(self.metric)) is not None:
                shown["metric"] = f"{self.metric} {number(value)}"
            if not self.is_live:
                self.line(f"{self.short[name]}: {progress.line(facts)}")
        self.table.update(row, **shown)
