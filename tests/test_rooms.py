"""Which room may import which (pyproject.toml says it, import-linter looks), and what importing costs."""

import json
import os
import sys

import pytest
from projects import ROOT, command, nbproof


def test_imports_go_one_way():
    done = command(ROOT, "lint-imports", PYTHONPATH="notebooks")
    assert done.returncode == 0 and "0 broken" in done.stdout, done.stdout[-3000:]


@pytest.mark.parametrize("room, wrong, told", [
    ("notebooks/mnist", "nbproof.pipeline.run", "mnist.wrong -> nbproof.pipeline.run"),
    ("nbproof", "mnist.data", "nbproof.wrong -> mnist.data"),
    ("nbproof/notebook", "nbproof.pipeline.config", ".notebook -> .project"),
    ("nbproof/runner", "nbproof.pipeline.verify", "nbproof.runner.wrong -> nbproof.pipeline.verify"),
])
def test_an_import_the_other_way_is_found(tmp_path, room, wrong, told):
    """The contracts are not empty words."""
    for source in [*(ROOT / "nbproof").rglob("*.py"), *(ROOT / "notebooks" / "mnist").rglob("*.py")]:
        place = tmp_path / source.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(source.read_bytes())
    (tmp_path / room / "wrong.py").write_text(f"import {wrong}\n")
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    done = command(tmp_path, "lint-imports", "--no-cache", PYTHONPATH=f"{tmp_path}{os.pathsep}{tmp_path / 'notebooks'}")
    assert done.returncode == 1 and told in done.stdout, done.stdout[-3000:]


def test_help_outside_of_a_project(tmp_path):
    shown = nbproof(tmp_path, "--help")
    assert shown.returncode == 0 and "run" in shown.stdout and "Traceback" not in shown.stdout, shown.stdout
    assert nbproof(tmp_path).stdout.split() == shown.stdout.split()  # the command alone prints what there is
    refused = nbproof(tmp_path, "verify")
    assert refused.returncode == 2 and refused.stdout.startswith("There is no project.yaml in "), refused.stdout
    assert refused.stdout.count("\n") == 1


def modules_of(folder, code: str) -> set[str]:
    """The modules that a fresh Python has loaded after `code`."""
    done = command(folder, sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))")
    assert done.returncode == 0, done.stdout
    return set(json.loads(done.stdout.splitlines()[-1]))


HEAVY = {"mlflow", "dvc", "IPython", "numpy", "pandas", "sklearn", "torch", "ray", "optuna", "papermill", "nbformat"}


def test_what_notebooks_import_is_light(tmp_path):
    assert modules_of(tmp_path, "import nbproof.notebook") & (HEAVY | {"typer"}) == set()


def test_what_help_imports_is_light(tmp_path):
    assert modules_of(tmp_path, "import nbproof.cli") & HEAVY == set()


@pytest.mark.parametrize("module, spared", [
    ("kernel", HEAVY | {"jsonschema"}), ("execute", {"boto3", "botocore", "pyarrow", "mlflow", "torch"})])
def test_what_a_stage_and_its_kernel_import_is_little(tmp_path, module, spared):
    """Before the kernel's own ipykernel; and papermill's ways to the cloud are none of a stage's."""
    assert modules_of(tmp_path, f"import nbproof.runner.{module}") & spared == set()
