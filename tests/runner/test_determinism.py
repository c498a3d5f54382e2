"""One arithmetic: the settings of every kernel, and the name of what they give."""

import os

import pytest

from nbproof.runner import determinism

MINE = {"MKL_CBWR": "AVX512", "OMP_NUM_THREADS": "7", "MKL_DEBUG_CPU_TYPE": "5",
        "MPLBACKEND": "svg", "PYTHONPATH": "mine", "MLFLOW_RUN_ID": "abc", "HTTPS_PROXY": "proxy"}


def test_a_kernel_has_the_settings_and_nothing_of_a_persons_own(tmp_path, monkeypatch):
    """H21: with MLFLOW_RUN_ID in a stranger's environment every model failed."""
    for name, value in MINE.items():
        monkeypatch.setenv(name, value)
    found = determinism.environment(tmp_path)
    assert determinism.SETTINGS.items() <= found.items() and found["OMP_NUM_THREADS"] == "1"
    assert not {"MKL_DEBUG_CPU_TYPE", "MPLBACKEND", "MLFLOW_RUN_ID"} & found.keys()
    assert found["NBPROOF_OUTPUT"] == str(tmp_path) and found["HTTPS_PROXY"] == "proxy"
    assert found["PYTHONHASHSEED"] == "0" and "mine" not in found["PYTHONPATH"].split(os.pathsep)
    assert "mine" not in determinism.tool_environment().values()


@pytest.mark.parametrize(("version", "added"), [
    ("2.15.0+cpu", "-torch-cpu"), ("2.15.0", ""), ("2.15.0+cu132", "")])
def test_pytorch_for_processors_alone_is_another_arithmetic(tmp_path, monkeypatch, version, added):
    plain = determinism.machine().removesuffix("-torch-cpu")
    (tmp_path / "torch-2.15.0.dist-info").mkdir()
    described = tmp_path / "torch-2.15.0.dist-info" / "METADATA"
    described.write_text(f"Name: torch\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert determinism.machine() == plain + added
