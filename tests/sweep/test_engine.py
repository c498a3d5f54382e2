"""ENGINE=ray: DVC drives as ever, each model's notebook is a task on the cluster, and the bytes are the same."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from cluster import cluster
from test_cycle import Clone, edit


def reset(project: Clone) -> None:
    project.call("git", "checkout", "-q", ".")
    project.dvc("checkout", "-q", "--force")  # the copy that shows the failure is not in the cache


def test_the_same_bytes_come_back_from_four_nodes(project):
    before = (project.root / "dvc.lock").read_bytes()
    with cluster(4) as machines:
        said = project.pipeline("run", "--force", ENGINE="ray", **machines.variables)
        assert said.count("s on the cluster -> reports/") == 3 and "linear: epoch 12/12" in said
        assert (project.root / "dvc.lock").read_bytes() == before

        notebook = project.root / "notebooks/linear.ipynb"
        edit(notebook, '"processor = training', '"raise RuntimeError(\'on purpose\')\\n",\n    "processor = training')
        said = project.pipeline("run", code=1, ENGINE="ray", **machines.variables)
        assert "linear: notebooks/linear.ipynb failed at cell" in said and "RuntimeError: on purpose" in said
        assert "on purpose" in (project.root / "reports/linear.html").read_text(encoding="utf-8")
        reset(project)
    assert not [each for each in psutil.process_iter(["cmdline"]) if str(project.root) in " ".join(each.info["cmdline"] or [])]


def start(project: Clone, **variables: str) -> subprocess.Popen:
    """A stage that has finished its first epoch, on Ray."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "stage", "linear"], cwd=project.root, env=project.variables | {"ENGINE": "ray"} | variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for line in process.stdout:
        if line.startswith("linear: epoch 1/"):
            return process
    raise AssertionError("the stage ended before its first epoch")


def workers() -> list[psutil.Process]:
    """The processes of Ray that execute a stage."""
    return [each for each in psutil.process_iter(["cmdline"]) if " ".join(each.info["cmdline"] or []).startswith("ray::_execute")]


@pytest.mark.long
def test_a_lost_node_has_its_stage_run_elsewhere(project):
    before = (project.root / "metrics/linear.json").read_bytes()
    with cluster(3, head_cpus=0) as machines:
        process = start(project, **machines.variables)
        (worker,) = workers()
        machines.kill(machines.node_of(worker))
        rest = process.communicate(timeout=200)[0]
    assert process.returncode == 0 and "linear: epoch 1/12" in rest and "s on the cluster" in rest, rest
    assert (project.root / "metrics/linear.json").read_bytes() == before
    reset(project)


@pytest.mark.long
def test_ctrl_c_leaves_no_process_behind(project):
    process = start(project)
    kernels = [child for worker in workers() for child in worker.children(recursive=True)]
    assert kernels
    os.kill(process.pid, signal.SIGINT)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "Traceback" not in rest, rest
    ends = time.monotonic() + 30
    while workers() or any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in kernels):
        assert time.monotonic() < ends
        time.sleep(0.2)
    reset(project)


@pytest.mark.long
def test_without_an_address_this_machine_is_the_cluster(project):
    before = (project.root / "dvc.lock").read_bytes()
    assert "on the cluster" in project.pipeline("stage", "linear", ENGINE="ray")
    project.dvc("commit", "-f", "-q", "train@linear")
    assert (project.root / "dvc.lock").read_bytes() == before
    reset(project)


def test_a_wrong_engine_or_address_is_said(project):
    assert "ENGINE must be ray, or not set, found 'spark'" in project.pipeline("stage", "linear", code=2, ENGINE="spark")
    said = project.pipeline("stage", "linear", code=2, ENGINE="ray", RAY_ADDRESS="127.0.0.1:1")
    assert "Ray at 127.0.0.1:1" in said and "cannot be reached" in said
