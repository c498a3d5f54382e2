"""One trial: the notebook with one set of values, executed on a node and kept in MLflow."""

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat

from nbproof.notebook import tracking
from nbproof.notebook.progress import STEP
from nbproof.sweep.cluster import Worker, working_folder

STATES = {"done": "FINISHED", "stopped early": "KILLED", "failed": "FAILED"}


class Trials(Worker):
    """A worker that executes one trial after another."""

    def trial(self, job: dict, trial: str, tried: dict) -> Iterator[dict]:
        """The trial's progress, step by step, then {"result": ...}, which its MLflow run keeps as the tag `result`.

        `job`: name, notebook, fixed values, metric, seconds a cell may take, experiment, tags. A store that fails or a
        full disk raises; a notebook that raises, or ends without a number, is a trial that failed."""
        store, started, last = tracking.client(os.environ["MLFLOW_TRACKING_URI"]), time.monotonic(), {}
        tags = job["tags"] | {"trial": trial, "values": json.dumps(tried, sort_keys=True), "notebook": job["name"],
                              "mlflow.source.type": "NOTEBOOK", "mlflow.source.name": job["notebook"],
                              "process": tracking.process()}
        run = store.create_run(job["experiment"], run_name=f"{job['name']} {trial}", tags=tags).info.run_id
        os.environ["NBPROOF_RUN_ID"] = run
        with working_folder() as folder:
            for event in self.notebook(job["notebook"], job["fixed"] | tried, job["timeout"], folder, trial):
                if set(event) == STEP:
                    last = event
                    yield event
            if event["failure"]:
                ended = {"state": "stopped early" if self.stopped else "failed", "failure": str(event["failure"])[:500],
                         "value": last.get("metrics", {}).get(job["metric"])}
            else:
                ended = _final(folder / "metrics" / f"{job['name']}.json", job["metric"])
            if event["executed"] is not None:
                path = folder / f"{job['name']}.ipynb"
                nbformat.write(event["executed"], path)
                store.log_artifact(run, str(path), "notebook")
        result = {"trial": trial, "tried": tried, **ended, "run_id": run, "steps_done": last.get("step", 0),
                  "steps_planned": last.get("steps", 0), "seconds": round(time.monotonic() - started, 2)}
        for name in ("failure", "state"):
            store.set_tag(run, name, result.get(name, ""))
        store.set_tag(run, "result", json.dumps(result))
        store.set_terminated(run, STATES[result["state"]])
        yield {"result": result}


def _final(path: Path, metric: str) -> dict:
    """How a notebook that ran to its end did: the number in its metrics file."""
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        numbers = {}
    value = numbers.get(metric)
    if type(value) not in (int, float):
        found = f"it has {', '.join(numbers)}" if numbers else "it has nothing"
        return {"state": "failed", "unknown": True, "failure": f"metrics/{path.name} has no number {metric}; {found}."}
    if not math.isfinite(value):
        return {"state": "failed", "failure": f"{metric} is {value}"}
    return {"state": "done", "value": value}
