"""Sweeps of the model `near` of the tiny project: what is tried, has ended, is at work."""

import contextlib
import sys
import time
from pathlib import Path

import mlflow
import optuna
import psutil
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from projects import edit_params

from nbproof.notebook.files import from_yaml

sys.path.insert(0, str(Path(__file__).parent))  # cluster.py
SPACE = "{trials: 6, space: {step: {low: 1, high: 9}, rounds: [3, 4]}}"


def tries(folder: Path, sweep: str = SPACE, model: str = "near", pause: float = 0.0) -> None:
    """Let params.yaml of the project say what is tried; each round takes `pause` seconds."""
    edit_params(folder, lambda content: content.update(sweep={model: from_yaml(sweep)}))
    if pause:
        wait = f"__import__('time').sleep({pause}); "
        code(folder, "curve.append(error", f"{wait}curve.append(error")


def code(folder: Path, old: str, new: str) -> None:
    """Change the code of near's notebook, `old` to `new`."""
    path = folder / "notebooks/near.ipynb"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials of the sweep; one that was lost is RUNNING for ever."""
    [log] = folder.glob("scratch/sweeps/*/study.log")
    storage = JournalStorage(JournalFileBackend(str(log)))
    return optuna.load_study(study_name="near", storage=storage).trials


def ended(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials of the sweep that have ended, each with the `failure` that MLflow has of it."""
    trials = [trial for trial in trials_of(folder) if trial.state.is_finished()]
    client, states = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db"), {
        "COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
    for trial in trials:
        run = client.get_run(trial.user_attrs["run_id"])
        assert run.info.status == states[trial.state.name]
        trial.user_attrs["failure"] = run.data.tags["failure"]
    return trials


def gone(folder: Path) -> None:
    """Wait until no process, no kernel either, is at work in the project."""
    ends = time.monotonic() + 60
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            while str(folder) in (process.cwd(), process.environ().get("NBPROOF_PROJECT")):
                assert time.monotonic() < ends, process.cmdline()
                time.sleep(0.2)
