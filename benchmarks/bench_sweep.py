"""`make bench-sweep`: what a sweep costs beyond its trainings, on this machine's own Ray, with the data of this workspace.

Usage: bench_sweep.py [--runs N] [overhead early speedup memory growth]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
MODEL, EPOCHS, TRIALS = "linear", 2, 12
# A fixed training of a moment, again and again: what differs between the ways of running it is what they cost.
SWEEP = """
import json, os, sys, tempfile, time
sys.path.insert(0, {root!r})
from pathlib import Path
cpus, count = int(sys.argv[1]), int(sys.argv[2])
os.cpu_count = lambda: cpus
from pipeline.sweep import drive, space
from pipeline.stage import parameters
_, fixed = parameters.checked({model!r})
fixed |= {{"epochs": {epochs}}}
del fixed["seed"]
wanted = space.Sweep({model!r}, count, 60, "validation_accuracy", {epochs}, 3, {{"seed": {{"low": 0, "high": 10**6}}}}, fixed)
from pipeline.cluster import DATA, connected, content, settings
with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{{folder}}/mlflow.db"
    parent, experiment = drive._parent(wanted, folder)
    with connected():
        import psutil, ray
        job = {{"model": wanted.model, "fixed": wanted.fixed, "metric": wanted.metric, "parent": parent, "experiment": experiment,
               "timeout": 600, "variables": settings(), "tags": {{"sweep": "bench"}}}}
        data = ray.put(content(DATA))
        began = time.monotonic()
        results, _ = drive._fit(wanted, folder, job, data)
        took = time.monotonic() - began
        idle = [p.memory_full_info().pss / 2**20 for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[0].startswith("ray::Trial")
                or "ray::IDLE" in (p.info["cmdline"] or [""])[0]]
    each = [r.metrics["time_total_s"] for r in results if r.metrics.get("done")]
    print("RESULT", json.dumps({{"seconds": took, "each": each, "idle": max(idle, default=0)}}))
"""
NOOP = """
import json, os, sys, time, tempfile
sys.path.insert(0, {root!r})
count = int(sys.argv[1])
os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = str(max(1.0, count / 100))
from pipeline.cluster import connected
with connected():
    import psutil, logging
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from pathlib import Path
    from pipeline.sweep.search import Search
    from pipeline.sweep.snapshot import Snapshots
    logging.getLogger("optuna").setLevel(logging.ERROR)
    class Noop(tune.Trainable):
        def setup(self, config): pass
        def reset_config(self, config): return True
        def step(self): return {{"accuracy": self.config["x"], "done": True}}
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(Noop, param_space={{"x": tune.uniform(0, 1)}}, tune_config=tune.TuneConfig(metric="accuracy", mode="max", num_samples=count,
            reuse_actors=True, search_alg=Search(seed=0), scheduler=ASHAScheduler(max_t=2)),
            run_config=tune.RunConfig(name="noop", storage_path=folder, verbose=0, checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[Snapshots(Path(folder))]))
        before, began = psutil.Process().memory_info().rss, time.monotonic()
        tuner.fit()
        print("RESULT", json.dumps({{"seconds": time.monotonic() - began, "memory": (psutil.Process().memory_info().rss - before) / 2**20}}))
"""


def result(script: str, *arguments: object) -> dict:
    """What a script of above measured, run in a process of its own."""
    code = script.format(root=str(ROOT), model=MODEL, epochs=EPOCHS)
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"A measurement failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def row(what: str, figure: str, wanted: str, reached: bool | None) -> None:
    print(f"| {what} | {figure} | {wanted} | {'' if reached is None else 'yes' if reached else 'no'} |", flush=True)


def bare() -> float:
    """Seconds of the same notebook, with the same values, by the stage's own runner in a warm process."""
    code = (
        f"import sys, time, tempfile, os; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom pipeline import ROOT\nfrom pipeline.stage import parameters\nfrom pipeline.stage.execute import execute\n"
        "folder = tempfile.mkdtemp(); os.environ['MLFLOW_TRACKING_URI'] = f'sqlite:///{folder}/mlflow.db'\n"
        f"notebook, values = parameters.checked({MODEL!r}); values['epochs'] = {EPOCHS}\n"
        "execute(notebook, values, 600, Path(folder), lambda event: None)\n"  # makes the database, warms the imports
        "began = time.monotonic(); execute(notebook, values, 600, Path(folder), lambda event: None); print(time.monotonic() - began)"
    )
    return float(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()[-1])


def overhead(runs: int) -> None:
    ours, reference = [], []
    for _ in range(runs):
        reference.append(bare())
        ours += sorted(result(SWEEP, 1, 4)["each"])[:-1]  # the slowest is the first: its worker was cold
    more = statistics.median(ours) - statistics.median(reference)
    row(f"a trial in a warm worker ({statistics.median(ours):.2f} s) beyond the bare notebook ({statistics.median(reference):.2f} s)",
        f"{more:+.2f} s", "<= 1.0 s", more <= 1.0)


def early(runs: int) -> None:
    import csv

    tables = sorted((ROOT / "scratch" / "sweeps").glob("*/trials.csv"), key=lambda path: path.stat().st_mtime)
    if not tables:
        row("share of epochs saved by early stopping", "no finished sweep here: make sweep MODEL=mlp", "", None)
        return
    with tables[-1].open() as file:
        rows = list(csv.DictReader(file))
    ran, planned = (sum(int(each[f"epochs_{what}"]) for each in rows) for what in ("done", "planned"))
    row(f"share of epochs saved by early stopping, {len(rows)} trials of {tables[-1].parent.name.rpartition('-')[0]}", f"{1 - ran / planned:.0%}", "", None)


def speedup(runs: int) -> None:
    two, one = [], []
    for _ in range(runs):
        one.append(result(SWEEP, 1, TRIALS)["seconds"])
        two.append(result(SWEEP, 2, TRIALS)["seconds"])
    ratio = statistics.median(one) / statistics.median(two)
    row(f"{TRIALS} trials on one core ({statistics.median(one):.1f} s) / on two ({statistics.median(two):.1f} s)", f"{ratio:.2f}", ">= 1.6", ratio >= 1.6)


def memory(runs: int) -> None:
    row("memory of an idle worker after its trials (proportional set size)", f"{result(SWEEP, 1, 2)['idle']:.0f} MiB", "", None)


def growth(runs: int) -> None:
    found = {count: result(NOOP, count) for count in (100, 300, 1000)}
    for count, each in found.items():
        figure = f"{1000 * each['seconds'] / count:.0f} ms, {each['memory']:.0f} MiB"
        row(f"{count} trials that do nothing: driver's time a trial, memory beyond the start", figure, "", None)
    # what each trial between 300 and 1,000 cost, and by how much more than one before: the same growth goes on
    early, late = found[300]["seconds"] / 300, (found[1000]["seconds"] - found[300]["seconds"]) / 700
    ahead = 10_000 * late + max(0.0, late - early) / 500 * 10_000**2 / 2
    row("reckoned from these for 10,000: driver's time in all, memory", f"{ahead / 60:.0f} min, {found[1000]['memory'] * 10:.0f} MiB", "", None)


def main() -> None:
    every = {"overhead": overhead, "early": early, "speedup": speedup, "memory": memory, "growth": growth}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("only", nargs="*", choices=[*every, "all"], default="all")
    given = parser.parse_args()
    if not (ROOT / "data" / "train.safetensors").exists():
        raise SystemExit("There is no data yet: make run first.")
    print(f"{os.cpu_count()} cores; medians of {given.runs} runs where two are compared\n")
    print("| what | figure | wanted | reached |\n|:--|--:|--:|:--|", flush=True)
    for name in every if "all" in given.only else given.only:
        every[name](given.runs)


if __name__ == "__main__":
    main()
