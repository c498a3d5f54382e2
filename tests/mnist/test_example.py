"""The example as a whole, on the digits that need no network; what any project does is tested on the tiny one."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from projects import (
    ROOT,
    command,
    commit,
    copy_of_project,
    edit_params,
    nbproof,
    results,
    stages_run,
)
from ruamel.yaml import YAML

ALL = {"data", "cnn", "mlp", "linear", "compare", "know"}
FEW_STEPS = {"cnn": {"epochs": 6, "width": 16, "top": 32}, "mlp": {"epochs": 18, "part_steps": 40},
             "linear": {"epochs": 12, "part_steps": 40}}
NOWHERE = {"MNIST_MIRRORS": "http://127.0.0.1:9/mnist/"}


@pytest.fixture(autouse=True)
def project():
    """No project around this process: the commands run in copies of the tree."""


def copy(folder: Path, source: str) -> Path:
    """A committed copy of the tree, few epochs, whatever its params.yaml says."""
    def change(content):
        content["data"]["source"] = source
        content["know"]["images"] = 200
        for name, values in FEW_STEPS.items():
            content["models"][name].update(values)
            if sys.platform == "darwin":  # hosted runners report an mps that has no memory to give
                content["models"][name]["device"] = "cpu"

    copy_of_project(folder)
    edit_params(folder, change)
    commit(folder)
    return folder


@pytest.fixture(scope="session")
def example(made_once) -> Path:
    """A copy in which the example ran on the small digits, two stages at a time; tests leave it as it is."""
    def make(folder: Path) -> None:
        done = nbproof(copy(folder, "digits"), "run", "--jobs", "2")
        assert done.returncode == 0 and stages_run(done.stdout) == ALL, done.stdout
        assert "is the registered champion now" in done.stdout and "data.source: digits" in done.stdout, done.stdout
        commit(folder)

    return made_once("example", make)


def test_nothing_to_do(example):
    done = nbproof(example, "run")
    assert done.returncode == 0 and done.stdout.startswith("Everything is up to date. The result: "), done.stdout
    assert done.stdout.endswith(" results are the committed ones, byte for byte.\n"), done.stdout
    assert nbproof(example, "verify").returncode == 0
    assert command(example, "git", "status", "--short").stdout == ""


def test_dead_mirrors_end_in_the_same_results(example, tmp_path):
    """MNIST is asked for where no mirror answers. Another folder, one stage at a time, and the same bytes as ever."""
    other = copy(tmp_path / "elsewhere" / "copy", "mnist")
    refused = nbproof(other, "run", "--no-fallback", **NOWHERE)
    assert refused.returncode == 1 and "Failed: data. Not run: " in refused.stdout, refused.stdout
    assert "http://127.0.0.1:9/mnist/" in refused.stdout and "MNIST_MIRRORS" in refused.stdout
    assert command(other, "git", "status", "--short", "params.yaml").stdout == ""

    done = nbproof(other, "run", "--jobs", "1", **NOWHERE)
    assert done.returncode == 0 and stages_run(done.stdout) == ALL, done.stdout
    switched = "Going on with data.source: digits instead of mnist."
    ran, said = done.stdout.split("Done in ")
    assert switched in ran and switched in said and "http://127.0.0.1:9/mnist/" in ran, done.stdout
    text = (other / "params.yaml").read_text(encoding="utf-8")
    assert YAML(typ="safe").load(text)["data"]["source"] == "digits"
    assert text.count("#") == (ROOT / "params.yaml").read_text(encoding="utf-8").count("#")
    assert (other / "dvc.lock").read_text(encoding="utf-8") == (example / "dvc.lock").read_text(encoding="utf-8")
    ours, theirs = results(example), results(other)
    assert len(ours) >= 24
    assert [name for name in ours | theirs if ours.get(name) != theirs.get(name)] == []


def test_no_result_tells_where_or_when_it_was_made(example):
    host = socket.gethostname().encode()
    telling = [str(example).encode(), b"start_time", b"/site-packages/", *([host] if len(host) > 5 else [])]
    for name, content in results(example).items():
        assert [word for word in telling if word in content] == [], name


def test_every_cell_gives_its_output_again(example):
    executed = sorted((example / "reports").glob("*.ipynb"))
    cells = [cell for path in executed for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    done = nbproof(example, "nbval", "-n", "2", "--dist", "loadfile", "--nbval-cell-timeout=300")
    assert done.returncode == 0, done.stdout[-5000:]
    assert len(executed) == 6 and f"{sum(cell['cell_type'] == 'code' for cell in cells)} passed" in done.stdout
    assert subprocess.check_output(["git", "status", "--short"], cwd=example) == b""  # what they wrote is in scratch/


def test_the_committed_results_are_good():
    lock = YAML(typ="safe").load((ROOT / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    mnist = lock["data"]["params"]["params.yaml"]["data"]["source"] == "mnist"
    for name, floor in {"linear": 0.92, "mlp": 0.98, "cnn": 0.993}.items():
        metrics = json.loads((ROOT / "metrics" / f"{name}.json").read_text(encoding="utf-8"))
        assert metrics["validation_accuracy"] >= (floor if mnist else 0.9)
    known = json.loads((ROOT / "metrics" / "know.json").read_text(encoding="utf-8"))
    assert known["answered_digits"] >= 0.95
    kinds = ("noise", "blanks", "letters", "mirrored", "upside_down", "cut")
    assert max(known[f"answered_{kind}"] for kind in kinds) <= (0.05 if mnist else 0.2)
