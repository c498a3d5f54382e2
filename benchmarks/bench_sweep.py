"""`make bench-sweep`: what a sweep costs beyond its trials, on this machine's own Ray, with a tiny project.

Usage: bench_sweep.py [--runs N] [overhead speedup growth]
Everything is written to a temporary folder.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "sweep"))
# Where every trial takes the same time, what differs between the ways of running it is what they cost.
SWEEP = "sweep: {{fit: {{trials: {count}, grace: 99, space: {{x: {{low: 0.5, high: 90.0}}}}}}}}\n"
BARE = """
import time
from pathlib import Path
from nbproof.runner import schema
from nbproof.runner.execute import execute
notebook = Path("notebooks/fit.ipynb").resolve()
for _ in range({count}):
    began = time.monotonic()
    execute(notebook, schema.values_of(notebook), 600, Path("scratch").resolve(), lambda event: None)
    print(time.monotonic() - began)
"""
DRIVE = """
import os, sys
os.cpu_count = lambda: {cpus}
from nbproof import cli
sys.argv = ["nbproof", "sweep", "fit", "--force"]
cli.main()
"""
PROPOSE = """
import json, time
from pathlib import Path
import psutil
from nbproof.pipeline import dag
from nbproof.notebook.files import root
from nbproof.sweep import search, space
with dag.opened(root()) as repo:
    wanted = space.read("fit", dag.read(repo))
study = search.study_of(wanted, Path("scratch"))
distributions, before, began = wanted.distributions(), psutil.Process().memory_info().rss, time.monotonic()
for number in range({count}):
    trial = study.ask(distributions)
    for step in range(1, 5):
        trial.report(trial.params["x"] / step, step)
        trial.should_prune()
    study.tell(trial, trial.params["x"])
print(json.dumps([time.monotonic() - began, (psutil.Process().memory_info().rss - before) / 2**20]))
"""


def script(project, code: str, **values: object) -> list[str]:
    """The lines that a script of above prints, run in the project."""
    done = subprocess.run([sys.executable, "-c", code.format(**values)], cwd=project.root, env=project.variables,
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"A measurement failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()


def row(what: str, figure: str, wanted: str = "", reached: bool | None = None) -> None:
    print(f"| {what} | {figure} | {wanted} | {'' if reached is None else 'yes' if reached else 'no'} |", flush=True)


def swept(project, cpus: int, count: int) -> list[float]:
    """The seconds of each trial of a sweep on `cpus` processors, its wall time first."""
    project.write(SWEEP.format(count=count))
    began = time.monotonic()
    script(project, DRIVE, cpus=cpus)
    return [time.monotonic() - began, *(float(each["seconds"]) for each in project.table())]


def overhead(project, runs: int) -> None:
    ours, bare = [], []
    for _ in range(runs):
        bare += [float(line) for line in script(project, BARE, count=4)][1:]
        ours += sorted(swept(project, 1, 4)[1:])[:-1]  # the slowest is the first: its worker was cold
    ours, bare = statistics.median(ours), statistics.median(bare)
    row(f"a trial in a warm worker ({ours:.2f} s) beyond the bare notebook ({bare:.2f} s)", f"{ours - bare:+.2f} s",
        "<= 1.0 s", ours - bare <= 1.0)


def speedup(project, runs: int) -> None:
    one, two = ([swept(project, cpus, 12)[0] for _ in range(runs)] for cpus in (1, 2))
    one, two = statistics.median(one), statistics.median(two)
    row(f"12 trials, start and page included, on one core ({one:.1f} s) / on two ({two:.1f} s)", f"{one / two:.2f}")


def growth(project, runs: int) -> None:
    project.write(SWEEP.format(count=1))
    for count in (100, 300, 1000):
        seconds, memory = json.loads(script(project, f"import shutil; shutil.rmtree('scratch', True)\n"
                                            f"__import__('os').mkdir('scratch')\n{PROPOSE}", count=count)[-1])
        row(f"Optuna's part of {count} trials of 4 steps: time a trial, memory beyond the start",
            f"{1000 * seconds / count:.0f} ms, {memory:.0f} MiB")


def main() -> None:
    every = {"overhead": overhead, "speedup": speedup, "growth": growth}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("only", nargs="*", choices=[*every, "all"], default="all")
    given = parser.parse_args()
    import tiny

    print(f"{os.cpu_count()} cores; medians of {given.runs} runs where two are compared\n")
    print("| what | figure | wanted | reached |\n|:--|--:|--:|:--|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        project = tiny.make(Path(folder) / "project")
        for name in every if "all" in given.only else given.only:
            every[name](project, given.runs)


if __name__ == "__main__":
    main()
