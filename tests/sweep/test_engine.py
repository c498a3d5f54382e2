"""ENGINE=ray: DVC drives as ever, a model's notebook is executed on the cluster, and the bytes are the same."""

import os
import signal
import time

import psutil
import pytest
from cluster import cluster
from tiny import CELLS, SWEEP, Project

SLOW = "\nfit: {x: 1.0, steps: 12, pause: 0.5, sizes: [1, 2], word: null}\n"


@pytest.fixture
def ran(project) -> Project:
    """The project after its run."""
    project.call("dvc", "repro", "-q")
    return project


def results(project: Project) -> dict[str, bytes]:
    return {name: (project.root / name).read_bytes()
            for name in ("metrics/fit.json", "models/fit/model.txt", "reports/fit.ipynb", "reports/fit.html")}


def workers() -> list[psutil.Process]:
    """The processes of Ray that execute a stage."""
    return [each for each in psutil.process_iter(["cmdline"])
            if " ".join(each.info["cmdline"] or []).startswith("ray::Worker.stage")]


def until(process, words: str) -> None:
    for line in process.stdout:
        if line.startswith(words):
            return
    raise AssertionError(f"it ended before it said {words}")


@pytest.mark.long
def test_the_same_bytes_come_back_from_nodes_and_a_failure_too(ran):
    before = results(ran)
    with cluster(2) as machines:
        said = ran.call("dvc", "repro", "--force", ENGINE="ray", **machines.variables)
        assert "fit: executed on the cluster" in said and "fit: step 4/4" in said
        assert results(ran) == before
        ran.write(cells=[*CELLS[:2], "raise RuntimeError('on purpose')", *CELLS[3:]])
        said = ran.nbproof("stage", "fit", code=1, ENGINE="ray", **machines.variables)
        assert "fit: notebooks/fit.ipynb failed at cell 3" in said and "RuntimeError: on purpose" in said
        assert "on purpose" in (ran.root / "reports/fit.html").read_text(encoding="utf-8")


@pytest.mark.long
def test_a_lost_node_has_its_stage_run_elsewhere(project):
    project.write(parameters=SLOW, sweep=SWEEP)
    with cluster(3, head_cpus=0) as machines:
        process = project.start("stage", "fit", ENGINE="ray", **machines.variables)
        until(process, "fit: step 1/")
        (worker,) = workers()
        machines.kill(machines.node_of(worker))
        rest = process.communicate(timeout=200)[0]
    assert process.returncode == 0 and "fit: step 1/12" in rest and "executed on the cluster" in rest, rest


@pytest.mark.long
def test_ctrl_c_leaves_no_process_behind(project):
    project.write(parameters=SLOW, sweep=SWEEP)
    process = project.start("stage", "fit", ENGINE="ray")
    until(process, "fit: step 1/")
    kernels = [child for worker in workers() for child in worker.children(recursive=True)]
    assert kernels
    os.kill(process.pid, signal.SIGINT)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "Traceback" not in rest, rest
    ends = time.monotonic() + 30
    while workers() or any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in kernels):
        assert time.monotonic() < ends
        time.sleep(0.2)


def test_a_wrong_engine_or_address_is_said(project):
    assert "ENGINE must be ray, or not set, found 'spark'" in project.nbproof("stage", "fit", code=2, ENGINE="spark")
    said = project.nbproof("stage", "fit", code=2, ENGINE="ray", RAY_ADDRESS="127.0.0.1:1")
    assert "Ray at 127.0.0.1:1" in said and "cannot be reached" in said
