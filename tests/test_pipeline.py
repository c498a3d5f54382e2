"""The whole pipeline, for real, on the digits that need no network."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, command, commit, copy_of_project, edit_params, make_small, pipeline
from ruamel.yaml import YAML

RESULTS = ("data", "models", "metrics", "reports")


def results(folder: Path) -> dict[str, bytes]:
    """Every result file with its bytes."""
    files = [path for name in RESULTS for path in sorted((folder / name).iterdir()) if path.is_file() and path.name != ".gitignore"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def stages_run(output: str) -> set[str]:
    return {line.split(":")[0] for line in output.splitlines() if ": every cell ran" in line}


def test_twice_from_nothing_gives_the_same_bytes_even_behind_dead_mirrors(finished, tmp_path):
    """Another folder, one job instead of two, nothing from a cache; and MNIST asked for where no mirror answers.

    `run` says so, notes the small digits in params.yaml and goes on; plain `dvc repro` does not switch.
    """
    other = copy_of_project(tmp_path / "elsewhere" / "copy")

    def small_mnist(content):
        make_small(content)
        content["data"]["source"] = "mnist"

    edit_params(other, small_mnist)
    commit(other)
    nowhere = {"MNIST_MIRRORS": "http://127.0.0.1:9/mnist/"}
    repro = command(other, "dvc", "repro", "data", **nowhere)
    assert repro.returncode != 0 and "http://127.0.0.1:9/mnist/" in repro.stdout, repro.stdout
    assert "MNIST_MIRRORS" in repro.stdout and "data.source to digits" in repro.stdout
    assert command(other, "git", "status", "--short", "params.yaml").stdout == ""

    done = pipeline(other, "run", "--jobs", "1", "--force", **nowhere)
    assert done.returncode == 0 and "Going on with data.source: digits" in done.stdout and "To go back" in done.stdout, done.stdout
    assert stages_run(done.stdout) == {"data", "linear", "mlp", "cnn", "compare"}
    text = (other / "params.yaml").read_text(encoding="utf-8")
    assert YAML(typ="safe").load(text)["data"]["source"] == "digits" and "# Every number a person may turn." in text
    for name in ("data", "linear", "mlp", "cnn", "compare"):
        assert "<strong>digits</strong>" in (other / "reports" / f"{name}.html").read_text(encoding="utf-8")

    assert (other / "dvc.lock").read_text(encoding="utf-8") == (finished / "dvc.lock").read_text(encoding="utf-8")
    ours, theirs = results(finished), results(other)
    assert len(ours) >= 24
    assert [name for name in ours | theirs if ours.get(name) != theirs.get(name)] == []


def test_no_result_tells_where_or_when_it_was_made(finished):
    host = socket.gethostname().encode()
    telling = [str(finished).encode(), b"start_time", b"/site-packages/", *([host] if len(host) > 5 else [])]  # a short name is everywhere
    assert [(name, word) for name, content in results(finished).items() for word in telling if word in content] == []


def test_nothing_to_do(finished):
    done = pipeline(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == set() and "up to date" in done.stdout, done.stdout
    repro = command(finished, "dvc", "repro")
    assert repro.returncode == 0 and "Running stage" not in repro.stdout, repro.stdout
    assert command(finished, "git", "status", "--short").stdout == ""


def test_what_an_editor_saves_retrains_nothing(finished):
    notebook = finished / "notebooks" / "mlp.ipynb"
    before = notebook.read_text(encoding="utf-8")
    content = json.loads(before)
    content["metadata"]["language_info"] = {"name": "python", "version": "3.99"}
    content["cells"][1]["execution_count"] = 7
    content["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["seen\n"]}]
    notebook.write_text(json.dumps(content, indent=2), encoding="utf-8")
    done = pipeline(finished, "run")
    assert stages_run(done.stdout) == set() and notebook.read_text(encoding="utf-8") == before, done.stdout


def test_a_changed_parameter_runs_its_model_and_the_comparison(finished):
    lock = (finished / "dvc.lock").read_bytes()
    edit_params(finished, lambda content: content["models"]["mlp"].update(lr=0.005))
    done = pipeline(finished, "run")
    assert stages_run(done.stdout) == {"mlp", "compare"}, done.stdout
    assert "models.mlp.lr" in command(finished, "dvc", "params", "diff").stdout
    changed, made = (finished / "dvc.lock").read_bytes(), results(finished)
    assert changed != lock

    back_to_the_commit(finished)
    assert (finished / "dvc.lock").read_bytes() == lock
    edit_params(finished, lambda content: content["models"]["mlp"].update(lr=0.005))
    repro = command(finished, "dvc", "repro", "--no-run-cache")  # the same job by DVC alone
    assert repro.returncode == 0 and stages_run(repro.stdout) == {"mlp", "compare"}, repro.stdout
    assert (finished / "dvc.lock").read_bytes() == changed and results(finished) == made
    back_to_the_commit(finished)


def back_to_the_commit(folder: Path) -> None:
    """params.yaml as committed, and the results from DVC's run-cache: nothing is trained."""
    subprocess.run(["git", "checkout", "-q", "params.yaml"], cwd=folder, check=True)
    back = command(folder, "dvc", "repro")
    assert back.returncode == 0 and stages_run(back.stdout) == set(), back.stdout
    assert command(folder, "git", "status", "--short").stdout == ""


def test_dvc_alone_from_nothing_records_the_same(finished, tmp_path):
    """No dvc.lock and no result, but DVC's cache: plain `dvc repro` restores everything; the order of dvc.lock is dvc.yaml's after the next `run`."""
    other = tmp_path / "copy"
    shutil.copytree(finished, other, ignore=shutil.ignore_patterns("tmp", "scratch", "__pycache__"))
    for path in [other / "dvc.lock", *(other / name for name in results(finished))]:
        path.unlink()
    repro = command(other, "dvc", "repro")
    assert repro.returncode == 0 and stages_run(repro.stdout) == set(), repro.stdout
    assert "up to date" in pipeline(other, "run").stdout
    assert (other / "dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()
    assert results(other) == results(finished)


def test_running_a_notebook_by_hand_changes_no_result(finished):
    before = results(finished)
    words = ["jupyter", "nbconvert", "--to", "notebook", "--execute", "notebooks/linear.ipynb", "--output-dir", "scratch", "--output", "by_hand"]
    done = command(finished, *words, PYTHONPATH=str(finished / "notebooks"))
    assert done.returncode == 0, done.stdout[-3000:]
    assert (finished / "scratch" / "models" / "linear.pt2").read_bytes() == before["models/linear.pt2"]
    assert results(finished) == before and command(finished, "git", "status", "--short").stdout == ""
    assert command(finished, "dvc", "status").stdout == "Data and pipelines are up to date.\n"


def test_a_model_comes_and_goes(finished):
    before, lock = results(finished), (finished / "dvc.lock").read_bytes()
    params = (finished / "params.yaml").read_bytes()
    pattern = (finished / "notebooks" / "linear.ipynb").read_text(encoding="utf-8")
    added = finished / "notebooks" / "second.ipynb"
    added.write_text(pattern.replace("models.linear", "models.second").replace('"linear"', '"second"').replace('\\"linear\\"', '\\"second\\"')
                     .replace("models/linear", "models/second"), encoding="utf-8")
    edit_params(finished, lambda content: content["models"].update(second=dict(content["models"]["linear"])))
    done = pipeline(finished, "run")
    assert stages_run(done.stdout) == {"second", "compare"}, done.stdout
    assert "second" in (finished / "reports" / "compare.html").read_text(encoding="utf-8")
    added.unlink()
    (finished / "params.yaml").write_bytes(params)
    done = pipeline(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) <= {"compare"}, done.stdout
    assert (finished / "dvc.lock").read_bytes() == lock
    assert results(finished) == before
    assert command(finished, "git", "status", "--short").stdout == ""


@pytest.mark.parametrize("words, told", [
    (("metrics", "show"), "validation_accuracy"),
    (("plots", "show", "--json"), "validation_accuracy"),
    (("dag",), "train@cnn"),
])
def test_dvc_commands(finished, words, told):
    done = command(finished, "dvc", *words)
    assert done.returncode == 0 and told in done.stdout, done.stdout
    command(finished, "git", "clean", "-qfd", "dvc_plots")


def test_experiments(finished):
    done = command(finished, "dvc", "exp", "run", "-S", "models.linear.lr=0.003")
    assert done.returncode == 0 and "Ran experiment" in done.stdout, done.stdout
    subprocess.run(["git", "checkout", "-q", "."], cwd=finished, check=True)
    back = pipeline(finished, "run")
    assert back.returncode == 0, back.stdout
    assert command(finished, "git", "status", "--short").stdout == ""


def test_no_name_from_params_reaches_a_shell(finished):
    before = (finished / "params.yaml").read_bytes()
    for name in ("x$(touch pwned)", "x; touch pwned", "x`touch pwned`", '"; touch pwned; "'):
        edit_params(finished, lambda content, name=name: content["models"].update({name: {"epochs": 1}}))
        done = pipeline(finished, "run")
        assert done.returncode == 2 and "a name is small letters" in done.stdout, done.stdout
        assert command(finished, "dvc", "repro").returncode != 0
        assert not list(finished.rglob("*pwned*"))
        (finished / "params.yaml").write_bytes(before)


def test_bad_values_stop_before_a_kernel(finished):
    before = (finished / "params.yaml").read_bytes()
    edit_params(finished, lambda content: content["models"]["cnn"].update(epochs=0))
    done = pipeline(finished, "run")
    assert done.returncode == 2 and done.stdout.count("\n") == 1, done.stdout
    assert "params.yaml: models.cnn.epochs must be int in [1, 1000]" in done.stdout and "found 0" in done.stdout
    assert "models.cnn.epochs must be int" in command(finished, "dvc", "repro", "train@cnn").stdout
    (finished / "params.yaml").write_bytes(before)
    assert command(finished, "dvc", "checkout").returncode == 0  # DVC had taken the outputs away before it started the command
    subprocess.run(["git", "checkout", "-q", "metrics"], cwd=finished, check=True)


def test_committed_results_are_from_real_mnist():
    lock = YAML(typ="safe").load((ROOT / "dvc.lock").read_text(encoding="utf-8"))
    assert lock["stages"]["data"]["params"]["params.yaml"]["data"]["source"] == "mnist"
    floors = {"linear": 0.92, "mlp": 0.98, "cnn": 0.993}
    for name, floor in floors.items():
        metrics = json.loads((ROOT / "metrics" / f"{name}.json").read_text(encoding="utf-8"))
        assert metrics["data"] == "mnist" and metrics["validation_accuracy"] >= floor
        recorded = {out["path"]: out["size"] for out in lock["stages"][f"train@{name}"]["outs"]}
        assert recorded[f"metrics/{name}.json"] == (ROOT / "metrics" / f"{name}.json").stat().st_size


def nbval(folder, *notebooks, workers="2"):
    """By nbval: re-execute `notebooks` of the copy at `folder` with their injected parameters and compare every output."""
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
