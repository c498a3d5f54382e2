"""The project's two houses importable, and scratch copies of it to run things in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
for name in ("MNIST_MIRRORS", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "OUTPUT_ROOT", "PROGRESS_FILE", "DVC_STAGE", "DVC_ROOT", "STARTED_BY", "CELL_TIMEOUT"):
    os.environ.pop(name, None)

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DVC_NO_ANALYTICS": "1"}  # nothing leaves the machine


def command(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run one command in `folder` to its end; output and errors together, as a person sees them."""
    return subprocess.run(
        words, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
    )


def pipeline(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `python -m pipeline ...` in `folder`."""
    return command(folder, sys.executable, "-m", "pipeline", *words, **environment)


def copy_of_project(folder: Path) -> Path:
    """The tracked files of the project in `folder`, as a git repository of its own with one commit; no data, no results."""
    tracked = subprocess.check_output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).exists() and not name.startswith("tests/") and name != "dvc.lock" and not name.startswith("metrics/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    commit(folder, "init", "-q")
    return folder


def commit(folder: Path, *first: str) -> None:
    """Commit everything in `folder`, after `git FIRST` where given."""
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for words in filter(None, (first, ("add", "-A"), (*who, "commit", "-qm", "state", "--allow-empty"))):
        subprocess.run(["git", *words], cwd=folder, check=True)


SMALL = {"cnn": {"epochs": 6, "width": 16, "hidden": 32}, "mlp": {"epochs": 18}, "linear": {"epochs": 12}}


def edit_params(folder: Path, change) -> None:
    """Let `change` work on the content of params.yaml, comments kept."""
    from ruamel.yaml import YAML

    yaml, path = YAML(), folder / "params.yaml"
    content = yaml.load(path.read_text(encoding="utf-8"))
    change(content)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


def make_small(content) -> None:
    """The digits that need no network, and few epochs."""
    content["data"]["source"] = "digits"
    for name, values in SMALL.items():
        content["models"][name].update(values)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A copy in which the whole pipeline ran on the small digits, two stages at a time. Tests that change it put it back."""
    folder = copy_of_project(tmp_path_factory.mktemp("first") / "project")
    edit_params(folder, make_small)
    done = pipeline(folder, "run", "--jobs", "2")
    assert done.returncode == 0, done.stdout
    commit(folder)
    return folder
