"""tests/warm.py: a command in a fork is the command, and nothing of it or of the server is left."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from projects import WARM, command, dvc, nbproof


def test_a_fork_has_its_own_folder_variables_and_exit_code(single, tmp_path):
    assert nbproof(single, "verify").returncode == 1
    assert "no project.yaml" in nbproof(tmp_path, "verify").stdout
    assert "params.yaml" in dvc(single, "status").stdout  # nothing of the other folder is cached
    wrong = nbproof(single, "nothing")
    assert wrong.returncode == 2 and "No such command 'nothing'" in wrong.stdout  # from stderr
    assert "are at http://x." in nbproof(single, "ui", MLFLOW_TRACKING_URI="http://x").stdout
    with pytest.raises(AssertionError, match="nbproof_process"):
        nbproof(single, "verify", PYTHONUTF8="1")


def test_the_programs_pass_on_what_they_print(single):
    path = f"{WARM.programs}{os.pathsep}{os.environ['PATH']}"
    piped = command(single, "sh", "-c", "nbproof verify 2>&1 | tr a-z A-Z; exit 7", PATH=path)
    assert piped.returncode == 7 and piped.stdout.startswith("THERE ARE NO RESULTS")


def test_a_command_that_takes_too_long_is_killed(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {slow: {cmd: sleep 60, always_changed: true}}\n")
    assert dvc(tmp_path, "init", "-q", "--no-scm").returncode == 0
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        WARM.run(["dvc", "repro"], tmp_path, dict(os.environ), timeout=2)
    assert time.monotonic() - began < 10
    ends = time.monotonic() + 5
    while working(tmp_path):
        assert time.monotonic() < ends
        time.sleep(0.05)


def working(folder: Path) -> list[int]:
    """The ids of the processes that work in `folder`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder):
                found.append(process.pid)
    return found


def test_the_server_ends_with_the_process_that_started_it():
    code = ("import os, warm; served = warm.Warm(); served.start();"
            "print(served.pid, served.address.parent, flush=True); os.kill(os.getpid(), 9)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)})
    pid, folder = done.stdout.split()
    ends = time.monotonic() + 10
    while psutil.pid_exists(int(pid)) or Path(folder).exists():
        assert time.monotonic() < ends
        time.sleep(0.05)
