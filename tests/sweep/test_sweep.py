"""Sweeps: what they find, what they keep, and what they leave behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbclient
import nbformat
import psutil
import pytest
from cluster import cluster
from conftest import code, ended, gone, trials_of, tries
from projects import dvc, said


def start(folder: Path, **variables: str) -> subprocess.Popen:
    """Start the sweep as a process that Ctrl-C ends as on a terminal."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "nbproof", "sweep", "near"], cwd=folder, text=True,
        env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))


def until_ended(trials: int, process: subprocess.Popen) -> None:
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line[0].isdigit() and int(line.split(" of ")[0]) >= trials:
            return
    raise AssertionError("".join(lines))


def test_a_small_sweep_from_a_notebook_finds_the_best_and_stops_what_falls_behind(finished):
    tries(finished)
    cell = nbformat.v4.new_code_cell("from nbproof.sweep.drive import sweep\nsweep('near')")
    book = nbformat.v4.new_notebook(cells=[cell])
    nbclient.execute(book, str(finished / "notebooks"), timeout=300)
    printed = "".join(output.get("text", "") for output in cell.outputs)
    trials = ended(finished)
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    early = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert sorted(trial.user_attrs["number"] for trial in done + early) == [*range(6)], printed
    assert early and all(done < planned for done, planned in (
        trial.user_attrs["steps"] for trial in early))
    best = min(done, key=lambda trial: trial.value)
    assert f"Best: error {best.value:.4g} with step {best.params['step']}, rounds" in printed
    page = (finished / "reports/sweep-near.html").read_text(encoding="utf-8")
    assert "Which values go together?" in page and "6 trials" in page and "Failed at" not in page
    assert "is finished" in said(finished, "sweep", "near")
    gone(finished)
    adopted = said(finished, "adopt", best.user_attrs["run_id"], "--yes")
    assert dvc(finished, "repro", "-q", "train@near").returncode == 0, adopted
    assert json.loads((finished / "metrics/near.json").read_text())["error"] == best.value


def test_a_notebook_that_raises_or_reaches_no_number_fails_its_trial_only(finished):
    """And a notebook without steps."""
    turns = "\\n".join([  # each execution takes the next one
        "import itertools, pathlib", "for turn in itertools.count():", "    try:",
        f"        pathlib.Path('{finished.parent}', f'turn{{turn}}').touch(exist_ok=False)",
        "        break", "    except FileExistsError:", "        pass",
        "assert turn != 2, 'on purpose'", "curve = []"])
    code(finished, "curve = []", turns)
    code(finished, "{'error': curve[-1]}) +", "{'error': float('nan') if turn == 3 else 0.5}) +")
    code(finished, "follower.step({'error'", "follower.step({'other'")
    tries(finished, "{trials: 4, space: {step: [4, 5]}}")
    assert dvc(finished, "repro", "-q", "train@near").returncode == 0
    printed = said(finished, "sweep", "near")
    failures = [trial.user_attrs["failure"][-10:] for trial in ended(finished)]
    assert sorted(failures) == ["", "", "nan", "on purpose"]
    assert "No trial is stopped early: the progress of notebooks/near.ipynb does not" in printed


def test_a_metric_that_no_trial_writes_and_a_dead_tracking_server_end_the_sweep(finished):
    tries(finished, "{trials: 2, metric: gain, goal: max, space: {step: [1, 5]}}")
    printed = said(finished, "sweep", "near", code=2)
    assert "metrics/near.json has no number gain; it has error." in printed
    server = "http://me:pass@127.0.0.1:9"
    printed = said(finished, "sweep", "near", code=2, MLFLOW_TRACKING_URI=server)
    assert "MLflow at http://127.0.0.1:9 or the disk did not keep a trial" in printed
    assert "pass@" not in printed


def without_store(process: subprocess.Popen, folder: Path) -> None:
    """Take the store away until the sweep has ended."""
    store = (folder / "mlflow.db").rename(folder / "moved")
    (folder / "mlflow.db").mkdir()
    process.wait(120)
    (folder / "mlflow.db").rmdir()
    store.rename(folder / "mlflow.db")


@pytest.mark.parametrize("end", [
    lambda process, _: process.send_signal(signal.SIGKILL),
    lambda process, _: process.send_signal(signal.SIGINT), without_store,
], ids=["kill", "Ctrl-C", "store"])
def test_a_sweep_that_was_ended_goes_on_where_it_was(end, finished):
    tries(finished, pause=0.5)
    process = start(finished)
    until_ended(1, process)
    end(process, finished)
    assert "Traceback" not in process.communicate(timeout=60)[0] and process.returncode
    gone(finished)
    assert "Going on with the sweep of near" in said(finished, "sweep", "near")
    trials = ended(finished)
    assert len(trials) == 6 and all(trial.state.name != "FAIL" for trial in trials)
    assert trials[-1].number > 5, "one was lost, and another took its place"


def until_running(trials: int, folder: Path) -> None:
    """Wait until so many trials are at work or lost."""
    while sum(trial.state.name == "RUNNING" for trial in trials_of(folder)) < trials:
        time.sleep(0.1)


def test_a_sweep_on_two_nodes_goes_on_after_the_loss_of_a_worker_and_of_a_node(finished):
    tries(finished, "{trials: 8, space: {step: {low: 1, high: 9}}}", pause=1)
    with cluster(2) as nodes:
        process = start(finished, **nodes.variables)
        until_ended(1, process)
        until_running(2, finished)
        head = psutil.Process(nodes.processes[0].pid).children(recursive=True)
        next(each for each in head if "ray::work_there" in " ".join(each.cmdline())).kill()
        until_ended(2, process)
        until_running(3, finished)
        nodes.kill(1)
        printed = process.communicate(timeout=500)[0]
    assert process.returncode == 0, printed
    trials = ended(finished)
    assert len(trials) == 8 and all(trial.state.name != "FAIL" for trial in trials)
    assert len(trials_of(finished)) == 10, "each loss costs one trial, and another takes its place"
