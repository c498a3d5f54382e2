"""Starts a sweep, or goes on with one that was broken off, and writes down its result."""

import csv
import importlib.util
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock, Timeout
from uv import find_uv_bin

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root, write_whole
from nbproof.notebook.tracking import without_credentials
from nbproof.pipeline import config, dag
from nbproof.pipeline.stage import cell_timeout
from nbproof.sweep import space
from nbproof.sweep.cluster import connected, data_of, remove_dead
from nbproof.sweep.table import best_of, counted, listed
from nbproof.workspace import bootstrap


def sweep(model: str, force: bool) -> int:
    """Run the sweep of the stage `model` to its end; `force` begins anew. 0 if at least one trial finished."""
    with dag.opened(root()) as repo:
        wanted = space.read(model, dag.read(repo))
        dag.check_current(repo, model, itself=False)
    _check_metric(wanted)
    _install()
    sweeps = root() / "scratch" / "sweeps"
    folder = sweeps / f"{model}-{wanted.digest()}"
    sweeps.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(sweeps / f"{model}.lock", timeout=0):
            best = folder / "best.json"
            note = json.loads(best.read_text(encoding="utf-8")) if best.exists() else {"trials": 0}
            if note.get("trials", wanted.trials) >= wanted.trials and not force:
                print(f"This sweep of {model} is finished: reports/sweep-{model}.html shows it. To begin anew: "
                      f"nbproof sweep {model} --force.")
                return 0
            if force:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            return _sweep(wanted, folder)
    except Timeout:
        raise UserError(f"Another sweep of {model} is at work in this folder: wait for it to end.") from None


def _install() -> None:
    """Install optuna and ray in this environment, where they are not."""
    if not all(map(importlib.util.find_spec, ("optuna", "ray"))):
        print("Installing requirements/sweep.txt", flush=True)
        words = ["pip", "install", "--quiet", "--python", sys.executable, "-r", "requirements/sweep.txt"]
        bootstrap.set_index()
        if subprocess.run([find_uv_bin(), *words], cwd=root()).returncode:
            raise UserError("requirements/sweep.txt could not be installed: see above.")


def _check_metric(wanted: space.Sweep) -> None:
    """UserError where the last run of the stage wrote no such number."""
    key, numbers = wanted.metric.key, config.load().metrics(wanted.name)
    if numbers and type(numbers.get(key)) not in (int, float):
        raise UserError(f"params.yaml: sweep.{wanted.name}: the metric {key} is unknown; metrics/{wanted.name}.json of "
                      f"the last run has {', '.join(numbers)}.")


def _sweep(wanted: space.Sweep, folder: Path) -> int:
    from mlflow.exceptions import MlflowException

    timeout, data = cell_timeout(), data_of(wanted.stage)
    try:
        store = tracking.client()
        parent, experiment = _parent(wanted, folder, store)
    except (MlflowException, OSError) as error:
        raise UserError(f"MLflow at {without_credentials(tracking.address())} does not answer, and a sweep keeps its "
                      f"trials there: {without_credentials(str(error))}") from None
    job = {"name": wanted.name, "notebook": wanted.stage.notebook, "fixed": wanted.fixed, "metric": wanted.metric.key,
           "timeout": timeout, "experiment": experiment, "tags": {
               "sweep": folder.name, "mlflow.parentRunId": parent, "mlflow.source.git.commit": tracking.commit()}}
    try:
        found = _searched(wanted, folder, job, data, store)
        _close(store, job, "KILLED" if found is None else "FINISHED")
        if found is None:
            print(f"\nStopped. What was finished is kept: nbproof sweep {wanted.name} goes on.", file=sys.stderr)
            return 130
        return _conclude(wanted, folder, found, parent, store)
    except (MlflowException, OSError) as error:
        raise UserError(f"The sweep stopped, because a trial could not be kept: {without_credentials(str(error))} What "
                      f"was finished is kept: mend that, and nbproof sweep {wanted.name} goes on.") from None


def _searched(wanted: space.Sweep, folder: Path, job: dict, data: dict, store) -> list[dict] | None:
    """The result of each trial; None where a person stopped the sweep."""
    with connected():
        import ray

        from nbproof.sweep import search

        study, results = search.study_of(wanted, folder), _close(store, job)
        if study.get_trials(deepcopy=False):
            print(f"Going on with the sweep of {wanted.name} where it was broken off.", flush=True)
            search.recover(study, results)
        found = list(results.values())
        try:
            search.Search(wanted, study, job, ray.put(data), found).run()
        except KeyboardInterrupt:
            return None
        return found


def _parent(wanted: space.Sweep, folder: Path, store) -> tuple[str, str]:
    """The sweep's own MLflow run and its experiment; the same ones when it is gone on with."""
    note = folder / "sweep.json"
    if note.exists():
        kept = json.loads(note.read_text(encoding="utf-8"))
        store.update_run(kept["parent"], "RUNNING")
        return kept["parent"], kept["experiment"]
    experiment = tracking.experiment(store, "sweep")
    tags = {"sweep": folder.name, "mlflow.source.git.commit": tracking.commit()}
    parent = store.create_run(experiment, run_name=f"sweep of {wanted.name}", tags=tags).info.run_id
    for name, tried in wanted.space.items():
        store.log_param(parent, f"space.{name}", json.dumps(tried))
    write_whole(note, json.dumps({"parent": parent, "experiment": experiment, "model": wanted.name}))
    return parent, experiment


def _close(store, job: dict, status: str = "") -> dict[str, dict]:
    """Close the trials that lost workers left open, with a `status` the sweep, too; the results by trials' names."""
    from nbproof.sweep.trial import STATES

    remove_dead()
    parent, results = job["tags"]["mlflow.parentRunId"], {}
    ours = f"tags.`mlflow.parentRunId` = '{parent}'"
    for run in store.search_runs([job["experiment"]], ours, max_results=50_000):
        result = json.loads(run.data.tags.get("result", "{}"))
        if run.info.status == "RUNNING":
            store.set_terminated(run.info.run_id, STATES.get(result.get("state"), "KILLED"))
        if result:
            results[result["trial"]] = result
    if status:
        store.set_terminated(parent, status)
    return results


def _conclude(wanted: space.Sweep, folder: Path, found: list[dict], parent: str, store) -> int:
    """trials.csv, the page, and the best trial in one sentence."""
    key, count, best = wanted.metric.key, counted(found), best_of(wanted, found)
    if best is None:
        print(f"\nNo trial of {wanted.name} came to its end ({count['failed']} failed); their notebooks are in MLflow, "
              f"experiment sweep. To begin anew: nbproof sweep {wanted.name} --force.", file=sys.stderr)
        return 1
    write_whole(folder / "trials.csv", _table(found, key))
    store.log_artifact(parent, str(folder / "trials.csv"))
    store.set_tag(parent, "best", best["run_id"])
    _page(wanted, folder)
    # the last one, since with it the sweep is finished
    note = {"model": wanted.name, "run_id": best["run_id"], "trials": len(found), key: best["value"]}
    write_whole(folder / "best.json", json.dumps(note))
    planned = sum(result["steps_planned"] for result in found)
    left = sum(result["steps_planned"] - result["steps_done"] for result in found if result["state"] == "stopped early")
    saved = f" ({left / planned:.0%} of the steps saved)" if planned else ""
    print(f"\n{count['done']} trials done, {count['stopped early']} stopped early{saved}, {count['failed']} failed.\n"
          f"Best: {key} {best['value']:.4g} with {listed(best['tried'])}.\n"
          f"{_against_committed(wanted, best['value'])}\n"
          f"reports/sweep-{wanted.name}.html shows them all; nbproof adopt best --model {wanted.name} takes the best "
          "into params.yaml.")
    if len(found) < wanted.trials:
        print(f"{wanted.trials - len(found)} trials were not begun in {wanted.minutes:g} minutes: nbproof sweep "
              f"{wanted.name} goes on with them.")
    return 0


def _table(found: list[dict], key: str) -> str:
    """trials.csv: a trial a row; lists and null as JSON."""
    rows = [{"trial": result["trial"], "state": result["state"], key: result.get("value"),
             **{name: result[name] for name in ("steps_done", "steps_planned", "seconds", "run_id")},
             **{name: json.dumps(value) if value is None or isinstance(value, list) else value
                for name, value in result["tried"].items()}}
            for result in sorted(found, key=lambda result: result["trial"])]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _against_committed(wanted: space.Sweep, best: float) -> str:
    """Whether the best trial is ahead of the last run, where that is one of the parameters and data of now."""
    ours = config.load().metrics(wanted.name).get(wanted.metric.key)
    with dag.opened(root()) as repo:
        changed = dag.changed(repo, [wanted.stage.name])
    if changed or ours is None:
        return "There is no result of the parameters in params.yaml to compare with: make run."
    verb = "beats" if wanted.metric.better(best, ours) else "does not beat"
    return f"It {verb} the parameters in params.yaml, which reached {ours:.4g}."


def _page(wanted: space.Sweep, folder: Path) -> None:
    """The result as a notebook, executed in the sweep's folder: reports/sweep-NAME.ipynb and .html."""
    import nbformat

    from nbproof.runner import html
    from nbproof.runner.execute import execute_notebook

    notebook = Path(shutil.copy(Path(__file__).with_name("sweep.ipynb"), folder))
    values = {"name": wanted.name, "trials": (folder / "trials.csv").relative_to(root()).as_posix(),
              "metric": wanted.metric.key, "goal": wanted.metric.goal, "tried": ",".join(wanted.space)}
    executed, failure = execute_notebook(notebook, values, 600, folder, lambda event: None)
    for cell in [cell for cell in executed.cells if cell.metadata.get("tags")]:
        if cell.metadata.pop("tags") == ["parameters"]:  # the page shows the values alone: no params.yaml has them,
            executed.cells.remove(cell)  # so it can make no table of them
    name = f"sweep-{wanted.name}"
    write_whole(root() / "reports" / f"{name}.ipynb", nbformat.writes(executed) + "\n")
    html.write(name)
    if failure:
        print(f"The page of the sweep failed at {failure}", file=sys.stderr)
