"""A tiny project for sweeps: one data file, one notebook that needs only numpy and says how far it is."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import psutil

from nbproof.runner import source

PROJECT = "name: tiny\nmetric: {key: loss, goal: min}\n"
PIPELINE = """
stages:
  data:
    cmd: python -c "open('data/numbers.csv', 'w').write('4')"
    outs: [data/numbers.csv]
  fit:
    cmd: nbproof stage
    deps: [notebooks/fit.ipynb, data/numbers.csv]
    params: [fit]
    outs: [models/fit, reports/fit.ipynb]
    metrics: [{metrics/fit.json: {cache: false}}]
"""
PARAMETERS = """
fit:
  x: 1.0
  steps: 4
  pause: 0.0
  sizes: [1, 2]
  word: null
"""
SWEEP = """
sweep:
  fit:
    trials: 6
    space:
      x: {low: 0.5, high: 8.0, log: true}
      sizes: [[1], [1, 2]]
"""
CELLS = [
    "import json\nimport os\nimport time\n\nfrom nbproof.notebook.files import output_folder, source, write\n"
    "from nbproof.notebook.params import section\nfrom nbproof.notebook.progress import say\n\n"
    "P = section(\"fit\")",
    "x: float = P.x  # (0, 100] where to look\nsteps: int = P.steps  # [0, 1000] how long\n"
    "pause: float = P.pause  # [0, 60] seconds of each step\nsizes: list[int] = P.sizes  # [1, 9] anything\n"
    "word: str | None = P.word  # anything",
    "best = float(source(\"data/numbers.csv\").read_text())\nloss = abs(x - best)",
    "for step in range(1, steps + 1):\n    time.sleep(pause)\n    loss = abs(x - best) + 1 / step\n"
    "    say(step=step, steps=steps, unit=\"step\", seconds=0.1, metrics={\"loss\": loss})",
    "numbers = {\"loss\": loss, \"size\": len(sizes), \"tracked\": int(\"NBPROOF_RUN_ID\" in os.environ)}\n"
    "write(\"metrics/fit.json\", json.dumps(numbers))\n"
    "_ = (output_folder(\"models/fit\") / \"model.txt\").write_text(str(x))",
]


def notebook(cells: list[str]) -> str:
    """A notebook of code cells, the second of them tagged `parameters`."""
    made = [{"cell_type": "code", "execution_count": None, "id": f"fit-{number}", "outputs": [], "source": text,
             "metadata": {"tags": ["parameters"]} if number == 1 else {}} for number, text in enumerate(cells)]
    return source.text(source.strip({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


class Project:
    """The project at `root`; `variables` is the environment of its commands."""

    def __init__(self, root: Path, **variables: str):
        others = ("MLFLOW_", "RAY_", "NBPROOF", "DVC_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
        self.root = root
        ours = {"PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1", "TINY": str(root)}
        self.variables = clean | ours | variables

    def call(self, *command: str, code: int | None = 0, **variables: str) -> str:
        """What the command said; `code` is the exit status that it must have."""
        done = subprocess.run(command, cwd=self.root, env=self.variables | variables, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert code is None or done.returncode == code, done.stdout
        return done.stdout

    def nbproof(self, *arguments: str, code: int | None = 0, **variables: str) -> str:
        return self.call("nbproof", *arguments, code=code, **variables)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen:
        """A command of nbproof as a process of its own group, which Ctrl-C ends as on a terminal."""
        return subprocess.Popen(
            ["nbproof", *arguments], cwd=self.root, env=self.variables | variables, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))

    def processes(self) -> set[int]:
        """All processes that its commands have started, directly or not, and that have not ended."""
        found = set()
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if each.environ().get("TINY") == str(self.root) and each.status() != psutil.STATUS_ZOMBIE:
                    found.add(each.pid)
        return found

    def gone(self) -> None:
        """Nothing of it is at work any more, or ends within a minute."""
        ends = time.monotonic() + 60
        while left := self.processes():
            assert time.monotonic() < ends, left
            time.sleep(0.5)

    @property
    def sweep(self) -> Path:
        """The folder of the newest sweep."""
        return max((self.root / "scratch/sweeps").glob("fit-*"), key=lambda path: path.stat().st_mtime)

    def table(self) -> list[dict]:
        """Its trials.csv."""
        with (self.sweep / "trials.csv").open() as file:
            return list(csv.DictReader(file))

    def trials(self) -> list:
        """The MLflow runs of its trials."""
        parent = json.loads((self.sweep / "sweep.json").read_text())
        runs = mlflow.MlflowClient(self.variables.get("MLFLOW_TRACKING_URI", f"sqlite:///{self.root / 'mlflow.db'}"))
        return runs.search_runs([parent["experiment"]], f"tags.`mlflow.parentRunId` = '{parent['parent']}'")

    def write(self, sweep: str = SWEEP, cells: list[str] = CELLS, parameters: str = PARAMETERS) -> None:
        """Write its parameters and its notebook anew."""
        (self.root / "params.yaml").write_text(parameters + sweep, encoding="utf-8")
        (self.root / "notebooks/fit.ipynb").write_text(notebook(cells), encoding="utf-8")


def make(root: Path) -> Project:
    """The project, in git and with its data, not yet run."""
    for folder in ("notebooks", "data", "reports"):
        (root / folder).mkdir(parents=True)
    (root / "project.yaml").write_text(PROJECT)
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / ".gitignore").write_text("/scratch\n/mlflow.db*\n/mlartifacts\n/reports\n/data\n/models\n/metrics\n")
    project = Project(root)
    project.write()
    project.call("git", "init", "-q")
    project.call("git", "config", "user.email", "a@b.c")
    project.call("git", "config", "user.name", "a")
    project.call("dvc", "init", "-q")
    project.call("dvc", "repro", "-q", "data")
    project.call("git", "add", ".")
    project.call("git", "commit", "-q", "-m", "start")
    return project
