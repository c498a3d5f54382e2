"""The benchmarks start as their make targets start them."""

import shutil
import subprocess
import sys

import pytest
from projects import ROOT


@pytest.mark.parametrize("script", ["bench.py"])
def test_without_data_it_says_what_to_do(script, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / script, tmp_path / "benchmarks")
    done = subprocess.run([sys.executable, tmp_path / "benchmarks" / script], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "There is no data yet: make run first.\n", done.stderr
