"""One arithmetic: the settings of every kernel, and the name of what they give."""

import os
import sys
from pathlib import Path

import pytest

from nbproof.runner import determinism

MINE = {"MKL_CBWR": "AVX512", "OMP_NUM_THREADS": "7", "MKL_DEBUG_CPU_TYPE": "5",
        "MPLBACKEND": "svg", "PYTHONPATH": "of/a/person", "PYTHONWARNINGS": "error",
        "MLFLOW_RUN_ID": "abc", "GLIBC_TUNABLES": "x", "HTTPS_PROXY": "proxy"}


def test_a_kernel_has_the_settings_and_nothing_of_a_persons_own(tmp_path, monkeypatch):
    """H21: with MLFLOW_RUN_ID in a stranger's environment every model failed."""
    for name, value in MINE.items():
        monkeypatch.setenv(name, value)
    found = determinism.environment(tmp_path)
    assert determinism.SETTINGS.items() <= found.items() and found["OMP_NUM_THREADS"] == "1"
    assert not {"MKL_DEBUG_CPU_TYPE", "MPLBACKEND", "PYTHONWARNINGS", "MLFLOW_RUN_ID",
                "GLIBC_TUNABLES"} & found.keys()
    assert found["NBPROOF_OUTPUT"] == str(tmp_path) and found["HTTPS_PROXY"] == "proxy"
    assert found["PYTHONHASHSEED"] == "0" and "of/a/person" not in found.get("PYTHONPATH", "")
    monkeypatch.setenv("NBPROOF_RUN_ID", "of a trial")
    assert determinism.environment(tmp_path)["NBPROOF_RUN_ID"] == "of a trial"


def test_tools_are_those_of_the_environment(monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "of/a/person")
    monkeypatch.setenv("PATH", "/bin")
    found = determinism.tool_environment()
    first, rest = found["PATH"].split(os.pathsep)
    assert Path(first) == Path(sys.executable).parent and rest == "/bin"
    assert "PYTHONHOME" not in found and found["VIRTUAL_ENV"] == sys.prefix


@pytest.mark.parametrize(("version", "added"), [
    ("2.15.0+cpu", "-torch-cpu"), ("2.15.0", ""), ("2.15.0+cu132", "")])
def test_pytorch_for_processors_alone_is_another_arithmetic(tmp_path, monkeypatch, version, added):
    plain = determinism.machine().removesuffix("-torch-cpu")
    (tmp_path / "torch-2.15.0.dist-info").mkdir()
    described = tmp_path / "torch-2.15.0.dist-info" / "METADATA"
    described.write_text(f"Name: torch\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert determinism.machine() == plain + added
    monkeypatch.setattr(determinism.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(determinism.platform, "machine", lambda: "arm64")
    assert determinism.machine() == f"darwin-arm64{added}"
