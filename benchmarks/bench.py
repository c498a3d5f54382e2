"""`make bench`: what the project costs, as ratios to a reference that is measured in the same call.

It works in a clone of the last commit in a temporary folder, with this workspace's cache.
Usage: bench.py [--runs N] [NAME ...], where NAME is a function below; default: all.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import psutil

from nbproof.runner import determinism, source

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
PATHS = f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}"
TOOLS = os.environ | {"PATH": PATHS, "PYTHONPATH": ""}
RUN, DVC = [PYTHON, "-m", "nbproof", "run"], [PYTHON, "-m", "dvc"]


def seconds(command: list[str], folder: Path) -> float:
    """Return the wall-clock seconds of a command, which must succeed."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=TOOLS, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - started


def alternating(runs: int, ours: Callable[[], float], reference: Callable[[], float]
                ) -> tuple[float, float]:
    """Return the medians of `runs` calls of each, made in turn."""
    pairs = [(ours(), reference()) for _ in range(runs)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def row(what: str, ours: float, reference: float, wanted: float, unit: str = "s") -> None:
    """Print one row of the table; the ratio should be at most `wanted`."""
    ratio = ours / reference
    cells = [what, f"{ours:.4g} {unit}", f"{reference:.4g} {unit}", f"{ratio:.4g}",
             f"<= {wanted}", "yes" if ratio <= wanted else "no"]
    print(f"| {' | '.join(cells)} |", flush=True)


# The code of a model's notebook up to its training cell, of which it prints the processor seconds.
TRAINING = """
import json, time
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in json.loads(Path("notebooks/NAME.ipynb").read_text())["cells"]:
    code = "".join(cell["source"])
    if cell["cell_type"] == "code":
        started = time.process_time()
        exec(compile(code, "cell", "exec"), globals())
        if "tracking.start(" in code:
            print(time.process_time() - started)
            break
"""

# What a plain script does: two dense nets, half of the images, three epochs, a DataLoader.
SCRIPT = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from mnist import data
dataset = data.load()
half = slice(len(dataset.train) // 2)
images = TensorDataset(dataset.train.normalised(half), dataset.train.labels[half])
for hidden in (64, 128):
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    optimizer = torch.optim.Adam(net.parameters())
    for epoch in range(3):
        for batch, labels in DataLoader(images, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(batch), labels).backward()
            optimizer.step()
    right = net(dataset.validation.normalised()).argmax(1) == dataset.validation.labels
    print(right.double().mean().item())
"""


def python(script: str, clone: Path) -> float:
    """Return the number that a script prints last; it computes as a stage does."""
    environment = TOOLS | determinism.SETTINGS | {
        "PYTHONPATH": f"{clone / 'notebooks'}", "MPLBACKEND": "agg", "NBPROOF_QUIET": "1"}
    done = subprocess.run([PYTHON, "-c", script], cwd=clone, env=environment, capture_output=True,
                          text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return float(done.stdout.split()[-1])


def forced(clone: Path, runs: int) -> None:
    """A forced run against its trainings and a plain script; the memory of its kernels."""
    trained = sum(python(TRAINING.replace("NAME", name), clone)
                  for name in ("cnn", "mlp", "linear"))
    peaks: Counter = Counter()
    with sampled(peaks):
        whole = seconds([*RUN, "--force", "--no-register"], clone)
    cores = os.cpu_count()
    row(f"a forced run / its trainings' processor seconds on {cores} cores", whole,
        trained / cores, 1.8)

    def script() -> float:
        started = time.perf_counter()
        python(SCRIPT, clone)
        return time.perf_counter() - started

    row("a forced run / a plain script", whole, statistics.median(script() for _ in range(runs)), 4)
    row("peak RSS of a kernel / 1,100 MiB", max(peaks.values()) / 2**20, 1100, 1.0, "MiB")


@contextlib.contextmanager
def sampled(peaks: Counter) -> Iterator[None]:
    """Keep the largest resident memory in bytes of every process below this one."""
    ended, ours = threading.Event(), psutil.Process()

    def watch() -> None:
        while not ended.wait(0.1):
            for process in ours.children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it has just ended
                    peaks[process.pid] = max(peaks[process.pid], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


DVC_YAML = """
stages:
  trivial:
    cmd: {cmd}
    deps: [notebooks/trivial.ipynb]
    params: [trivial]
    outs: [reports/trivial.ipynb]
"""
SHELL = ("papermill --kernel python3 notebooks/trivial.ipynb reports/trivial.ipynb -p one 1 "
         "&& jupyter nbconvert --to html reports/trivial.ipynb")


def trivial(clone: Path, runs: int) -> None:
    """One changed notebook of five cells, against papermill and nbconvert by `dvc repro`."""
    texts = {"project.yaml": "name: trivial\nmetric: {key: x, goal: min}\n",
             "params.yaml": "trivial: {one: 1}\n"}
    projects = {name: clone.parent / name for name in ("ours", "theirs")}
    for folder, cmd in zip(projects.values(), ("nbproof stage", SHELL)):
        for part in ("notebooks", "reports"):
            (folder / part).mkdir(parents=True)
        for file, text in (texts | {"dvc.yaml": DVC_YAML.format(cmd=cmd)}).items():
            (folder / file).write_text(text)
        for command in (["git", "init", "-q"], [*DVC, "init", "-q"]):
            seconds(command, folder)
    numbers = iter(range(10_000))

    def changed_run(name: str, command: list[str]) -> float:
        cells = ['from nbproof.notebook import section\nP = section("trivial")',
                 "one: int = P.one  # [0, 9] a number", f"print({next(numbers)})", "one", "one + 1"]
        made = [nbformat.v4.new_code_cell(cell, id=f"cell-{i}") for i, cell in enumerate(cells)]
        made[1].metadata["tags"] = ["parameters"]
        text = source.text(source.strip(nbformat.v4.new_notebook(cells=made)))
        (projects[name] / "notebooks" / "trivial.ipynb").write_text(text)
        return seconds(command, projects[name])

    ours, theirs = alternating(max(runs, 5), lambda: changed_run("ours", RUN),
                               lambda: changed_run("theirs", [*DVC, "repro"]))
    row("a changed trivial stage: `nbproof run` / papermill + nbconvert by DVC", ours, theirs, 0.35)


def idle(clone: Path, runs: int) -> None:
    """A run with nothing to do, against `dvc status`."""
    seconds(RUN, clone)
    ours, theirs = alternating(max(runs, 5), lambda: seconds(RUN, clone),
                               lambda: seconds([*DVC, "status"], clone))
    row("a run with nothing to do / `dvc status`", ours, theirs, 1.3)


def main() -> None:
    """Measure what the command line names, and print a table."""
    known = {each.__name__: each for each in (forced, trivial, idle)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("names", nargs="*", choices=[*known, "all"], default="all")
    arguments = parser.parse_args()
    if not (ROOT / "data" / "train.safetensors").exists():
        raise SystemExit("There is no data yet: make run first.")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        clone = Path(folder) / "project"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        shutil.copytree(ROOT / ".dvc" / "cache", clone / ".dvc" / "cache")
        if (downloads := ROOT / "scratch" / "download").exists():
            shutil.copytree(downloads, clone / "scratch" / "download")
        checkout = subprocess.run([*DVC, "checkout", "--quiet"], cwd=clone, capture_output=True)
        if checkout.returncode:  # the committed results were made elsewhere
            print("DVC's cache lacks committed results: they are made first.", file=sys.stderr)
            seconds(RUN, clone)
        print(f"{os.cpu_count()} cores, medians of {arguments.runs} or more alternating runs\n")
        print("| what | ours | reference | ratio | wanted | reached |\n|:--|--:|--:|--:|--:|:--|")
        for name in known if "all" in arguments.names else arguments.names:
            known[name](clone, arguments.runs)


if __name__ == "__main__":
    main()
