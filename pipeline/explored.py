"""What MLflow remembers of the runs that were made by hand."""

import json
import os

from pipeline import ROOT, Refused
from pipeline.tracking import LOCAL, address, client

EXPLORATIONS = "explore"  # the experiment of notebooks that no stage runs


def best_of_sweep(model: str) -> str:
    """The MLflow id of the best trial of the newest finished sweep, of `model` where it is named."""
    notes = sorted((ROOT / "scratch" / "sweeps").glob("*/best.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = [json.loads(note.read_text(encoding="utf-8")) for note in notes]
    for each in found:
        if model in ("", each["model"]):
            return each["run_id"]
    raise Refused(f"There is no finished sweep{f' of {model}' if model else ''} here: make sweep MODEL={model or 'cnn'} first.")


def recorded(run: str) -> tuple[str, str, dict[str, str]]:
    """The id, the notebook's name and the parameters (as text) of the run with the id `run`, or of the newest finished exploration for `last`."""
    from mlflow.exceptions import MlflowException

    store = address()
    if store == LOCAL and not (ROOT / "mlflow.db").exists():
        raise Refused("There is no run to adopt yet: run a notebook in JupyterLab (make lab) first.")
    known = client(store)
    try:
        found = _newest(known) if run == "last" else known.get_run(run)
    except MlflowException as error:
        raise Refused(f"MLflow does not give run {run!r}: {' '.join(str(error).split())[:200]}") from None
    if "notebook" not in found.data.tags:
        raise Refused(f"Run {run} has no tag `notebook`, so it is none of this project's notebooks.")
    return found.info.run_id, found.data.tags["notebook"], dict(found.data.params)


def _newest(client):
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPLORATIONS
    experiment = client.get_experiment_by_name(name)
    query = "attributes.status = 'FINISHED'"
    runs = client.search_runs([experiment.experiment_id], query, max_results=1, order_by=["attributes.start_time DESC"]) if experiment else []
    if not runs:
        raise Refused(f"MLflow's experiment {name} has no finished run yet: run a notebook in JupyterLab (make lab) to its end first.")
    return runs[0]
