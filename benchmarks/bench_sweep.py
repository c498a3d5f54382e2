"""`make bench-sweep`: what a sweep costs beyond its trials, on this machine.

The trials of a tiny notebook, one after another by the executor alone, and by `nbproof sweep`;
with --old, also by that of another checkout. Medians of wall and processor seconds."""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "sweep"), str(ROOT / "tests")]
SWEEP = "{{trials: {trials}, grace: 99, space: {{step: {{low: 1, high: 9}}}}}}"  # none is stopped
BARE = """
from pathlib import Path
from nbproof.runner import schema
from nbproof.runner.execute import execute_notebook
notebook = Path("notebooks/near.ipynb").resolve()
for _ in range({trials}):
    execute_notebook(notebook, schema.values_of(notebook), 600, Path("scratch").resolve(), len)
"""


def measured(folder: Path, words: list[str], source: Path = ROOT) -> tuple[float, float]:
    """Run a command with the package in `source`; return wall and processor seconds."""
    mark, began, used = uuid.uuid4().hex, time.monotonic(), {}
    environment = os.environ | {"PYTHONPATH": str(source), "BENCH_SWEEP": mark}
    process = subprocess.Popen([sys.executable, *words], cwd=folder, env=environment,
                               stdout=subprocess.DEVNULL)
    while process.poll() is None:  # most kernels and Ray's processes are gone at its end
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if each.environ().get("BENCH_SWEEP") == mark:
                    used[each.pid] = sum(each.cpu_times()[:2])
        time.sleep(0.1)
    wall = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"{words} failed.")
    return wall, sum(used.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--old", type=Path, help="another checkout, to compare with")
    import conftest
    import projects

    given = parser.parse_args()
    sweep = ["-m", "nbproof", "sweep", "near", "--force"]
    ways = {"the executor alone": (["-c", BARE.format(trials=given.trials)], ROOT),
            "nbproof sweep": (sweep, ROOT), "old": (sweep, given.old)}
    figures = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        project = projects.tiny(Path(folder) / "project")
        conftest.tries(project, SWEEP.format(trials=given.trials))
        measured(project, ["-m", "nbproof", "run"])
        for way, (words, source) in [item for item in ways.items() if item[1][1]] * given.rounds:
            figures[way].append(measured(project, words, source))
    print(f"{given.trials} trials, {os.cpu_count()} cores; in brackets: of nbproof sweep\n")
    print("| way | wall | processor |\n|:--|--:|--:|")
    middle = {way: [statistics.median(row) for row in zip(*rows)]
              for way, rows in figures.items() if rows}
    for way, (wall, used) in middle.items():
        ours = middle["nbproof sweep"]
        print(f"| {way} | {wall:.1f} s ({wall / ours[0]:.2f}) | {used:.1f} s "
              f"({used / ours[1]:.2f}) |")


if __name__ == "__main__":
    main()
