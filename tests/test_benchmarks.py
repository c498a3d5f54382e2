"""The benchmarks start as their make targets start them."""

import importlib.util
import shutil
import subprocess
import sys

import pytest
from projects import ROOT, commit, nbproof


@pytest.mark.parametrize("script", ["bench.py"])
def test_without_data_it_says_what_to_do(script, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / script, tmp_path / "benchmarks")
    done = subprocess.run([sys.executable, tmp_path / "benchmarks" / script], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "There is no data yet: make run first.\n", done.stderr


def test_results_that_the_cache_lacks_are_made_first(single, monkeypatch, capsys):
    """The committed ones may have been made on another machine."""
    (single / "data" / "download").mkdir(parents=True)
    (single / "data" / "train.safetensors").touch()
    assert nbproof(single, "run").returncode == 0
    commit(single)
    shutil.rmtree(single / ".dvc" / "cache" / "files")
    found = importlib.util.spec_from_file_location("bench", ROOT / "benchmarks" / "bench.py")
    bench, seen = importlib.util.module_from_spec(found), []
    found.loader.exec_module(bench)

    def idle(clone, runs):
        seen.append((clone / "models" / "x.txt").read_text())

    monkeypatch.setattr(bench, "ROOT", single)
    monkeypatch.setattr(bench, "idle", idle)
    monkeypatch.setattr(sys, "argv", ["bench.py", "idle"])
    bench.main()
    assert seen == ["result 1"] and "they are made first" in capsys.readouterr().err
