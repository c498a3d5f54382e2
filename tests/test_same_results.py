"""The same bytes: one arithmetic in every kernel, results of one state only, and what is said about the commit."""

import json
import os
import subprocess
import sys

import pytest
from projects import ROOT, WRITES, cells, commit, edit_params, nbproof, results, stages_run

from nbproof import isolation
from nbproof.pipeline import run
from nbproof.workspace import lab
from nbproof.runner import determinism
from nbproof.runner.source import strip_file


def set_text(path, old: str, new: str) -> None:
    """Replace `old` in the notebook at `path`, which stays stripped."""
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")
    strip_file(path)


def test_new_prose_trains_nothing_and_gives_what_a_run_gives(finished):
    before = results(finished)
    set_text(finished / "notebooks" / "near.ipynb", "a model", "a model that I like")
    done = nbproof(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == set(), done.stdout
    assert "near: only its text changed" in done.stdout and "near differs: code (notebooks/near.ipynb)" in done.stdout
    after = results(finished)
    assert {name for name in after if after[name] != before[name]} == {"reports/near.ipynb", "reports/near.html"}
    assert b"that I like" in after["reports/near.html"]
    assert "up to date" in nbproof(finished, "run").stdout
    done = nbproof(finished, "run", "--force")
    assert stages_run(done.stdout) == {"data", "near", "far", "compare"}, done.stdout
    assert results(finished) == after


@pytest.mark.parametrize("what", ["code", "parameter", "module", "cache", "arithmetic"])
def test_more_than_prose_runs_the_notebook(finished, what):
    path = finished / "notebooks" / "near.ipynb"
    if what == "arithmetic":
        report = finished / "reports" / "near.ipynb"
        report.write_text(report.read_text().replace(determinism.machine(), "another"), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "dvc", "commit", "--force", "train@near"], cwd=finished, check=True)
    set_text(path, "a model", "a model that I like")
    if what == "code":
        set_text(path, "with seed {seed}", "with the seed {seed}")
    elif what == "parameter":
        edit_params(finished, lambda content: content["models"]["near"].update(step=3))
    elif what == "module":
        with (finished / "notebooks" / "tiny" / "cases.py").open("a") as file:
            file.write("\nLATER = 1\n")
    elif what == "cache":
        subprocess.run(["git", "rm", "-q", "--cached", "-r", "metrics"], cwd=finished, check=True)
        commit(finished)
        subprocess.run(["rm", "-r", finished / ".dvc" / "cache"], check=True)
    done = nbproof(finished, "run")
    assert done.returncode == 0 and "near" in stages_run(done.stdout), done.stdout


def test_the_end_says_whether_the_results_are_the_committed_ones(finished):
    lines = nbproof(finished, "run").stdout.splitlines()
    assert lines[-1] == "All 20 results are the committed ones, byte for byte."
    edit_params(finished, lambda content: content["models"]["far"].update(step=5))
    done = nbproof(finished, "run")
    assert "\nfar differs: parameters (models.far.step).\n" in done.stdout
    assert "\ncompare differs: parameters (models.far.step), what it reads (models).\n" in done.stdout
    assert " of 20 results are the committed ones, byte for byte." in done.stdout


def test_another_arithmetic_is_compared_by_value(finished):
    """The stage looks as if it had run elsewhere: its executed copy says so, and its numbers are a little different."""
    (finished / "project.yaml").write_text((finished / "project.yaml").read_text() + "tolerance: {absolute: 0.01}\n")
    commit(finished)
    report, metrics = finished / "reports" / "far.ipynb", finished / "metrics" / "far.json"
    report.write_text(report.read_text().replace(determinism.machine(), "linux-aarch64"), encoding="utf-8")
    for off, said in ((0.005, "all numbers are the committed ones within 0.01"), (0.5, "outside 0.01: error")):
        error = json.loads(metrics.read_text())["error"]
        metrics.write_text(json.dumps({"error": error + off}))
        subprocess.run([sys.executable, "-m", "dvc", "commit", "--force", "train@far"], cwd=finished, check=True)
        done = nbproof(finished, "run")
        assert f"far differs: another arithmetic (linux-aarch64); {said}." in done.stdout, done.stdout


def test_a_machine_with_another_arithmetic_says_so_first(finished, inside, monkeypatch, capsys):
    monkeypatch.setattr(arithmetic, "machine", lambda: "linux-x86_64-sse")
    inside(finished)
    assert run.run(jobs=1, force=False) == 0
    assert capsys.readouterr().out.startswith("This machine computes as linux-x86_64-sse, not as linux-x86_64-avx2: ")


@pytest.mark.skipif(not determinism.machine().startswith(determinism.NAME), reason="this machine has no AVX2 by itself")
def test_the_processor_is_asked_with_numpy_and_without():
    asks = "from nbproof.runner import arithmetic\nprint(determinism.machine(), 'numpy' in sys.modules)\n"
    command = [sys.executable, "-c", f"import sys\n{asks}import numpy\n{asks}"]
    here = determinism.machine()
    for hidden, found in (("", here), ("X86_V3", here.replace("avx2", "sse"))):  # hidden from NumPy alone
        variables = os.environ | {"NPY_DISABLE_CPU_FEATURES": hidden}
        said = subprocess.run(command, env=variables, capture_output=True, text=True).stdout
        assert said == f"{here} False\n{found} True\n"


@pytest.mark.parametrize(("version", "added"), [("2.15.0+cpu", "-torch-cpu"), ("2.15.0", ""), ("2.15.0+cu132", "")])
def test_a_build_of_pytorch_for_processors_alone_is_another_arithmetic(tmp_path, version, added):
    (tmp_path / "torch-2.15.0.dist-info").mkdir()
    (tmp_path / "torch-2.15.0.dist-info" / "METADATA").write_text(f"Name: torch\nVersion: {version}\n")
    says = "from nbproof.runner import arithmetic; print(determinism.machine(), determinism.process(), sep='\\n')"
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", says], env=variables, capture_output=True, text=True)
    plain = determinism.machine().removesuffix("-torch-cpu")
    assert done.stdout.split() == [plain + added] * 2, done.stderr


def test_what_changes_while_the_stage_runs_fails_it_and_the_old_lock_stays(single):
    saves = "from pathlib import Path\nx = Path('x.ipynb')\n_ = x.write_text(x.read_text().replace('begun', 'beg'))"
    cells(single, WRITES, "print('begun')", saves)
    done = nbproof(single, "run")
    assert done.returncode == 1 and "notebooks/x.ipynb changed while the stage ran" in done.stdout, done.stdout
    assert not (single / "dvc.lock").exists()


def test_what_is_gone_when_the_stage_ends_has_changed(single):
    cells(single, WRITES, "from pathlib import Path\nPath('x.ipynb').rename('y.ipynb')")
    done = nbproof(single, "stage", "x")
    assert done.returncode == 1 and done.stdout.endswith(
        "x: notebooks/x.ipynb failed: notebooks/x.ipynb changed while the stage ran, so its results are of neither "
        "state. Run again.\n"), done.stdout


def test_a_kernel_has_the_settings_and_nothing_of_a_persons_own(single):
    names = ["MKL_CBWR", "OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "PYTHONPATH", "PYTHONWARNINGS", "MPLBACKEND"]
    cells(single, WRITES, f"import os, json; print(json.dumps({{n: os.environ.get(n) for n in {names}}}))")
    (single / "mine").mkdir()
    (single / "mine" / "sitecustomize.py").write_text("print('mine')\n")
    for module in ("numpy", "yaml", "mlflow"):
        (single / "mine" / f"{module}.py").write_text("raise ImportError('of a person')\n")
    mine = {"MKL_CBWR": "AVX512", "OMP_NUM_THREADS": "7", "MKL_DEBUG_CPU_TYPE": "5", "MPLBACKEND": "svg",
            "PYTHONPATH": str(single / "mine"), "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": ""}
    done = nbproof(single, "run", **mine)
    assert done.returncode == 0 and done.stdout.count("mine") == 1, done.stdout  # by the Python that it began with
    executed = json.loads((single / "reports" / "x.ipynb").read_text())
    found = json.loads(executed["cells"][-1]["outputs"][0]["text"][0])
    assert found["MKL_CBWR"] == determinism.SETTINGS["MKL_CBWR"] and found["OMP_NUM_THREADS"] == "1"
    assert found["MKL_DEBUG_CPU_TYPE"] is None and str(single / "mine") not in (found["PYTHONPATH"] or "")
    assert executed["metadata"]["arithmetic"] == determinism.machine()


def test_a_clean_environment_is_left_alone():
    clean = {"PATH": "/bin", "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", "NBPROOF_X": "1"}
    assert isolation.cleaned(clean) == clean
    home = str(isolation.HOME)
    mine = clean | {"PYTHONPATH": f"/of/a/person{os.pathsep}{home}", "PYTHONHASHSEED": "7", "PYTHONWARNINGS": "error"}
    assert isolation.cleaned(mine) == clean | {"PYTHONPATH": home}
    assert isolation.cleaned(mine | {"PYTHONPATH": "/of/a/person"}) == clean


def test_a_cell_that_changes_the_arithmetic_fails_the_stage(single):
    cells(single, WRITES, "import os; os.environ['OMP_NUM_THREADS'] = '2'")
    done = nbproof(single, "run")
    assert done.returncode == 1 and "OMP_NUM_THREADS is 2 instead of 1" in done.stdout, done.stdout


def test_jupyterlab_has_the_same_arithmetic(single, inside, tmp_path):
    inside(single)
    files = lab.files(tmp_path, "python")
    kernel = json.loads(files[tmp_path / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"])
    assert kernel["env"] == determinism.SETTINGS
    assert determinism.SETTINGS.items() <= os.environ.items(), "and the tests themselves"


def test_a_lock_that_is_being_written_is_read_a_moment_later(finished):
    from nbproof.pipeline import dag

    lock, tries = finished / "dvc.lock", []
    whole, text = lock.read_text(encoding="utf-8"), "stages: 1\n"

    def read() -> set[str]:
        tries.append(lock.write_text(text if len(tries) < torn else whole, encoding="utf-8"))
        with dag.opened(finished) as repo:
            return set(dag.read(repo))

    torn = 3
    assert "compare" in dag.patiently(read) and len(tries) == 4
    tries.clear()
    torn = 100
    with pytest.raises(dag.Unreadable, match="DVC cannot read the pipeline"):
        dag.patiently(read)
    assert len(tries) == 11
