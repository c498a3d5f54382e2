"""Starts a sweep, or goes on with one that was broken off, and writes down its result."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import nbformat
import optuna
from filelock import FileLock, Timeout
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root, write_whole
from nbproof.pipeline import dag
from nbproof.pipeline.stage import cell_timeout
from nbproof.runner import html, reaper
from nbproof.runner.execute import execute_notebook
from nbproof.sweep import space
from nbproof.sweep.space import Sweep
from nbproof.sweep.trial import EVERY, STOPPED, Job, ended, opened, work


def sweep(model: str, force: bool = False) -> int:
    """Run the sweep of the stage `model` to its end, or go on with it; `force` begins anew.

    Return 0 if a trial ran to its end.
    """
    wanted, folder = _read(model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(f"{model}.lock"), timeout=0):
            if force:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            return _sweep(wanted, folder)
    except Timeout:
        raise UserError(f"Another sweep of {model} is at work in this folder: wait for it to "
                        "end.") from None


def _read(model: str) -> tuple[Sweep, Path]:
    """Return the sweep, and its folder: another one if what it tries or reads is another."""
    with dag.opened(root()) as repo:
        wanted = space.read(model, dag.read(repo))
        dag.check_current(repo, model, itself=False)
        reads = dag.digests(dag.dvc_stage(repo, wanted.stage.name)) | {dag.PARAMS: wanted.fixed}
    settings = [wanted.space, wanted.metric, wanted.grace, wanted.reduction, wanted.trials]
    digest = hashlib.sha256(f"{settings}{json.dumps(reads, sort_keys=True)}".encode()).hexdigest()
    return wanted, root() / "scratch" / "sweeps" / f"{model}-{digest[:12]}"


def _sweep(wanted: Sweep, folder: Path) -> int:
    log, name = folder / "study.log", wanted.stage.short
    if log.exists():  # a full disk can leave a part of a line, after which Optuna reads no more
        whole = log.read_bytes()
        write_whole(log, whole[: whole.rfind(b"\n") + 1])
    with tracking.refused(STOPPED):
        study = opened(wanted, JournalFileBackend(str(log)))
        numbers = sorted({*range(wanted.trials)} - ended(study).keys())
        if not numbers and study.best_trials:
            print(f"This sweep is finished. To begin anew: nbproof sweep {name} --force.")
            return _conclude(wanted, folder, study)
        if study.get_trials():
            print(f"Going on with the sweep of {name} where it was interrupted.", flush=True)
        tags = {"mlflow.source.git.commit": tracking.commit(), "notebook": name,
                "mlflow.source.type": "NOTEBOOK", "mlflow.source.name": wanted.stage.notebook,
                "sweep": folder.name}
        job = Job(wanted, str(log), time.time() + 60 * wanted.minutes, cell_timeout(),
                  tracking.experiment(tracking.client(), "sweep"), tags)
        _watch(study, job, numbers)
    return _conclude(wanted, folder, study)


def _watch(study: optuna.Study, job: Job, numbers: list[int]) -> None:
    """Let the trials of these numbers run, and print a line when some have ended."""
    run, known = _here, 0
    if os.environ.get("RAY_ADDRESS"):
        from nbproof.sweep.cluster import on_ray as run
    with contextlib.closing(run(job, numbers)) as looks:
        for _ in looks:
            states = [trial.state for trial in ended(study).values()]
            if len(states) == known:
                continue
            known, done = len(states), states.count(TrialState.COMPLETE)
            best = f"; best {_described(study.best_trial, job.wanted)}" if done else ""
            print(f"{known} of {job.wanted.trials} trials: {done} done, "
                  f"{states.count(TrialState.PRUNED)} stopped early, "
                  f"{states.count(TrialState.FAIL)} failed{best}", flush=True)


def _here(job: Job, numbers: list[int]) -> Iterator[None]:
    """Execute trials on this machine, as many at a time as it has room for; yield meanwhile."""
    cores = os.cpu_count() or 1
    threads = max(1, cores // job.needs.get("num_cpus", cores))
    with ThreadPoolExecutor(threads) as pool, reaper.session() as session:
        try:
            waiting = {pool.submit(work, job, number, JournalFileBackend(job.log), session)
                       for number in numbers}
            while waiting:
                ready, waiting = wait(waiting, EVERY)
                yield
                for trial in ready:
                    trial.result()
        except BaseException:  # Ctrl-C above all: the session ends the kernels, and no trial that
            shutil.rmtree(session.folder, ignore_errors=True)  # ends by that must count as failed
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _described(trial: FrozenTrial, wanted: Sweep) -> str:
    values = ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                       for name, value in space.typed(trial.params).items())
    return f"{wanted.metric.key} {trial.value:.4g} with {values}"


def _conclude(wanted: Sweep, folder: Path, study: optuna.Study) -> int:
    """Make the page, and print the best trial in one sentence."""
    trials, name = [*ended(study).values()], wanted.stage.short
    if all(trial.state != TrialState.COMPLETE for trial in trials):
        print(f"No trial of {name} finished; their notebooks are in MLflow, experiment "
              f"sweep. To begin anew: nbproof sweep {name} --force.", file=sys.stderr)
        return 1
    _page(wanted, folder)
    best = study.best_trial
    print(f"Best: {_described(best, wanted)}.\n"
          f"reports/sweep-{name}.html shows all trials; nbproof adopt {best.user_attrs['run_id']} "
          "takes the best into params.yaml.")
    if not any(trial.intermediate_values for trial in trials):
        print(f"No trial is stopped early: the progress of {wanted.stage.notebook} does not report "
              f"{wanted.metric.key}.")
    if len(trials) < wanted.trials:
        print(f"The {wanted.minutes:g} minutes are over: the same command goes on.")
    return 0


def _page(wanted: Sweep, folder: Path) -> None:
    """Execute sweep.ipynb on the study: reports/sweep-NAME.ipynb and .html."""
    notebook = Path(shutil.copy(Path(__file__).with_name("sweep.ipynb"), folder))
    values = {"name": wanted.stage.short, "log": str(folder / "study.log"),
              "metric": wanted.metric.key}
    executed, failure = execute_notebook(notebook, values, 600, folder, lambda event: None)
    name = f"sweep-{wanted.stage.short}"
    write_whole(root() / "reports" / f"{name}.ipynb", nbformat.writes(executed) + "\n")
    html.write(name)
    if failure:
        raise UserError(f"The page of the sweep failed at {failure}")
