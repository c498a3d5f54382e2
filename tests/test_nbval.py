"""Executed notebooks against a re-execution of every cell, by nbval."""

import json
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.xdist_group("finished")


def nbval(folder, *notebooks, workers="2"):
    """Re-execute `notebooks` of the copy at `folder` with their injected parameters and compare every output."""
    environment = os.environ | {"PYTHONPATH": str(folder / "notebooks"), "PROGRESS_FILE": os.devnull}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=300", "-p", "no:cacheprovider", "-q",
         "-n", workers, "--dist", "loadfile", "--rootdir", str(folder), "-c", os.devnull, *map(str, notebooks)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=600,
    )


def test_every_cell_gives_its_output_again(finished):
    executed = sorted((finished / "reports").glob("*.ipynb"))
    before = {path: path.read_bytes() for path in executed}
    done = nbval(finished, *executed)
    assert done.returncode == 0, done.stdout[-5000:]
    assert len(executed) == 5 and f"{sum(_code_cells(path) for path in executed)} passed" in done.stdout
    assert {path: path.read_bytes() for path in executed} == before
    status = subprocess.run(["git", "status", "--short"], cwd=finished, capture_output=True, text=True)
    assert status.stdout == ""  # what they wrote went to scratch/


def _code_cells(path) -> int:
    return sum(cell["cell_type"] == "code" for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])


def test_a_changed_number_is_found(finished, tmp_path):
    shutil.copy(finished / "reports" / "data.ipynb", tmp_path)
    text = (tmp_path / "data.ipynb").read_text(encoding="utf-8")
    assert "a factor of 1." in text
    (tmp_path / "data.ipynb").write_text(text.replace("a factor of 1.", "a factor of 2.", 1), encoding="utf-8")
    done = nbval(finished, tmp_path / "data.ipynb", workers="0")
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout[-3000:]
