"""Starts a sweep, or goes on with one that was broken off, and writes down its result."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline import ROOT, Refused
from pipeline.cluster import DATA, cell_timeout, connected, content, needs, remove_dead, settings
from pipeline.stage.files import write_whole
from pipeline.sweep import space
from pipeline.tracking import LOCAL, address, client, without_credentials

SWEEPS = ROOT / "scratch" / "sweeps"
SEED = 0  # of the searcher: the same space is searched in the same way


def sweep(model: str, force: bool) -> int:
    """Run the sweep of `model` to its end; `force` begins anew. 0 if at least one trial finished."""
    wanted = space.read(model)
    folder = SWEEPS / f"{model}-{wanted.digest}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(SWEEPS / f"{model}.lock", timeout=0):
            return _sweep(wanted, folder, force)
    except Timeout:
        raise Refused(f"Another sweep of {model} is at work in this folder: wait for it to end.") from None


def _sweep(wanted: space.Sweep, folder: Path, force: bool) -> int:
    if (folder / "trials.csv").exists() and not force:
        print(f"This sweep of {wanted.model} is finished (reports/sweep-{wanted.model}.html); to begin anew: make sweep MODEL={wanted.model} FORCE=1.")
        return 0
    if force:
        shutil.rmtree(folder)
        folder.mkdir()
    if not (ROOT / DATA).exists():
        raise Refused(f"{DATA} is not there yet: make run (or dvc pull) makes it.")
    parent, experiment = _parent(wanted, folder)
    with connected():
        import ray
        from mlflow.exceptions import MlflowException

        from pipeline.sweep.table import NotKept

        job = {
            "model": wanted.model, "fixed": wanted.fixed, "metric": wanted.metric, "parent": parent, "experiment": experiment, "variables": settings(),
            "timeout": cell_timeout(), "tags": {"sweep": folder.name, "mlflow.source.git.commit": _commit()},
        }
        try:
            results, interrupted = _fit(wanted, folder, job, ray.put(content(DATA)))
            rows = [_row(wanted, result) for result in results]
            _close(parent, experiment, folder.name, interrupted)
        except (NotKept, MlflowException, OSError) as error:
            said = " ".join(without_credentials(str(error)).split())
            raise Refused(
                f"The sweep stopped, because a trial could not be kept: {said} "
                f"What was finished is kept: mend that, and make sweep MODEL={wanted.model} goes on."
            ) from None
    if interrupted:
        print(f"\nStopped. What was finished is kept; make sweep MODEL={wanted.model} goes on with it.", file=sys.stderr)
        return 130
    return _conclude(wanted, folder, rows, parent)


def _fit(wanted: space.Sweep, folder: Path, job: dict, data) -> tuple[list, bool]:
    """Tune's results, and whether a person stopped it."""
    import logging

    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    from pipeline.sweep.search import Search
    from pipeline.sweep.snapshot import Snapshots, restored
    from pipeline.sweep.table import Table  # here: Ray reads its settings when it is first imported, so connected() comes before
    from pipeline.sweep.trial import Trial

    for name in ("ray.tune", "ray.train", "optuna"):  # what goes wrong is said in one sentence, once
        logging.getLogger(name).setLevel(logging.CRITICAL)
    job["lost"] = _lost(folder, job)
    Search.lost = [json.loads(values) for values in job["lost"]]
    trainable = tune.with_resources(tune.with_parameters(Trial, job=job, data=data), needs(wanted.fixed))
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = str(max(1.0, wanted.trials / 100))  # the state grows with the trials and is written whole
    callbacks = [Table(wanted.trials, wanted.metric, wanted.minutes), Snapshots(folder)]
    place = folder / "tune"
    if restored(folder):
        print(f"Going on with the sweep of {wanted.model} where it was broken off.", flush=True)
        tuner = tune.Tuner.restore(str(place), trainable=trainable, resume_unfinished=True, resume_errored=True)
        tuner._local_tuner._run_config.callbacks = callbacks
    else:
        tuner = tune.Tuner(
            trainable, param_space=space.for_tune(wanted),
            tune_config=tune.TuneConfig(
                metric=wanted.metric, mode="max", num_samples=wanted.trials, time_budget_s=60 * wanted.minutes, reuse_actors=True,
                search_alg=Search(seed=SEED),
                scheduler=ASHAScheduler(
                    time_attr="epoch", max_t=wanted.most_epochs, grace_period=min(wanted.grace, wanted.most_epochs), reduction_factor=wanted.reduction,
                ),
            ),
            run_config=tune.RunConfig(
                name="tune", storage_path=str(folder), verbose=0, callbacks=callbacks, failure_config=tune.FailureConfig(max_failures=3),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the model is in MLflow; a trial that is lost begins anew
            ),
        )
    try:
        results = list(tuner.fit())
        for _ in range(3):  # Tune gives a trial up when its lost worker is reported twice, once as unavailable and once as dead
            if not any(isinstance(result.error, ray.exceptions.RayActorError) for result in results):
                break
            tuner = tune.Tuner.restore(str(place), trainable=trainable, resume_errored=True)
            tuner._local_tuner._run_config.callbacks = callbacks
            results = list(tuner.fit())
        return results, False
    except KeyboardInterrupt:
        return [], True


def _lost(folder: Path, job: dict) -> dict[str, tuple[str, str]]:
    """Trials that ended after the state was last kept: what they tried, each with its MLflow run and the id by which Tune knew it."""
    from pipeline.sweep.snapshot import known

    still = known(folder)
    ended = client().search_runs([job["experiment"]], f"tags.`mlflow.parentRunId` = '{job['parent']}'", max_results=50_000) if still else []
    tags = {run.info.run_id: run.data.tags for run in ended}
    return {each["values"]: (run, each["trial"]) for run, each in tags.items() if "result" in each and each["trial"] not in still}


def _row(wanted: space.Sweep, result) -> dict:
    """One trial as a row of trials.csv."""
    last = result.metrics or {}
    config = {**wanted.fixed, **(result.config or {})}
    whole = bool(last.get("done")) and "failure" in last
    state = "failed" if result.error or last.get("failed") else "done" if whole else "stopped early"
    return {
        "trial": last.get("trial_id", ""), "state": state, wanted.metric: last.get(wanted.metric, ""), "epochs_done": last.get("epoch", 0),
        "epochs_planned": config.get("epochs", 0), "seconds": round(last.get("time_total_s", 0.0), 2), "run_id": last.get("run_id", ""),
        **{name: config[name] for name in wanted.space},
    }


def _parent(wanted: space.Sweep, folder: Path) -> tuple[str, str]:
    """The sweep's own MLflow run and its experiment; the same ones when it is gone on with."""
    from mlflow.exceptions import MlflowException

    known, note = client(), folder / "sweep.json"
    try:
        if note.exists():
            kept = json.loads(note.read_text(encoding="utf-8"))
            known.update_run(kept["parent"], "RUNNING")
            return kept["parent"], kept["experiment"]
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "sweep"
        found = known.get_experiment_by_name(name)
        root = (ROOT / "mlartifacts").as_uri() if address() == LOCAL else None
        experiment = found.experiment_id if found else known.create_experiment(name, root)
        tags = {"sweep": folder.name, "mlflow.source.git.commit": _commit()}
        parent = known.create_run(experiment, run_name=f"sweep of {wanted.model}", tags=tags).info.run_id
        for name, tried in wanted.space.items():
            known.log_param(parent, f"space.{name}", json.dumps(tried))
    except (MlflowException, OSError) as error:
        raise Refused(
            f"MLflow at {without_credentials(address())} does not answer, and a sweep keeps its trials there: {without_credentials(str(error))}"
        ) from None
    write_whole(note, json.dumps({"parent": parent, "experiment": experiment, "model": wanted.model}))
    return parent, experiment


def _close(parent: str, experiment: str, sweep_name: str, interrupted: bool) -> None:
    """No run of this sweep is running any more: what a lost node left open is closed, and its files on this machine are removed."""
    remove_dead()
    known = client()
    for run in known.search_runs([experiment], f"tags.sweep = '{sweep_name}' and attributes.status = 'RUNNING'", max_results=5000):
        known.set_terminated(run.info.run_id, "KILLED" if interrupted or run.info.run_id != parent else "FINISHED")


def _conclude(wanted: space.Sweep, folder: Path, rows: list[dict], parent: str) -> int:
    """trials.csv, the page, and the best trial in one sentence."""
    from pipeline.sweep.table import short

    done = sorted((row for row in rows if row["state"] == "done"), key=lambda row: (-row[wanted.metric], row["trial"]))
    if not done:
        failed = sum(row["state"] == "failed" for row in rows)
        print(f"No trial of {wanted.model} came to its end ({failed} failed); their notebooks are in MLflow, experiment sweep.", file=sys.stderr)
        return 1
    with (folder / "trials.part").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["trial"]))
    os.replace(folder / "trials.part", folder / "trials.csv")
    best = done[0]
    write_whole(folder / "best.json", json.dumps({"model": wanted.model, "run_id": best["run_id"], wanted.metric: best[wanted.metric]}))
    known = client()
    known.log_artifact(parent, str(folder / "trials.csv"))
    known.set_tag(parent, "best", best["run_id"])
    _page(wanted, folder)
    saved = 1 - sum(row["epochs_done"] for row in rows) / max(1, sum(row["epochs_planned"] for row in rows))
    print(f"\n{len(done)} trials done, {sum(row['state'] == 'stopped early' for row in rows)} stopped early ({saved:.0%} of the epochs saved), "
          f"{sum(row['state'] == 'failed' for row in rows)} failed.")
    print(f"Best: {wanted.metric} {best[wanted.metric]:.4f} with {', '.join(f'{name} {short(best[name])}' for name in wanted.space)}.")
    print(_against_committed(wanted, best))
    print(f"reports/sweep-{wanted.model}.html shows them all; make adopt RUN=best MODEL={wanted.model} takes the best into params.yaml.")
    return 0


def _against_committed(wanted: space.Sweep, best: dict) -> str:
    """Whether the best trial is ahead of what params.yaml has now."""
    metrics = ROOT / "metrics" / f"{wanted.model}.json"
    ours = json.loads(metrics.read_text(encoding="utf-8")).get(wanted.metric) if metrics.exists() else None
    if ours is None:
        return "There is no result of the parameters in params.yaml to compare with: make run."
    verb = "beats" if best[wanted.metric] > ours else "does not beat"
    return f"It {verb} the parameters in params.yaml, which reached {ours:.4f}."


def _page(wanted: space.Sweep, folder: Path) -> None:
    """The result as a notebook: reports/sweep-MODEL.ipynb and .html."""
    import nbformat

    from pipeline.stage import page
    from pipeline.stage.execute import execute

    values = {"model": wanted.model, "trials": (folder / "trials.csv").relative_to(ROOT).as_posix(), "metric": wanted.metric, "tried": ",".join(wanted.space)}
    executed, failure = execute(ROOT / "notebooks" / "sweep.ipynb", values, 600)
    write_whole(ROOT / "reports" / f"sweep-{wanted.model}.ipynb", nbformat.writes(executed) + "\n")
    write_whole(ROOT / "reports" / f"sweep-{wanted.model}.html", page.render(executed))
    if failure:
        print(f"notebooks/sweep.ipynb failed at {failure}", file=sys.stderr)


def _commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return asked.stdout.strip() if asked.returncode == 0 else "unknown"
