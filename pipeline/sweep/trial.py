"""One trial: a model's notebook with one set of parameters, executed in a worker of Ray, epoch by epoch under Tune's eyes."""

import json
import os
import queue
import shutil
import socket
import tempfile
import threading
from pathlib import Path

import psutil
from ray import tune

from pipeline import ROOT
from pipeline.cluster import DATA, bring, place, reachable, remove_dead


class Trial(tune.Trainable):
    """Each step is an epoch that the notebook says it has finished; a step that is not asked for any more ends the notebook's kernel."""

    def setup(self, config: dict, job: dict, data: tuple) -> None:
        """`job`: model, fixed values, metric, seconds a cell may take, MLflow variables, parent run, experiment, tags; `data`: DATA's content."""
        self.job = job
        os.environ |= job["variables"]
        reachable(os.environ["MLFLOW_TRACKING_URI"])
        bring(DATA, data)
        remove_dead()
        self.thread = None

    def reset_config(self, config: dict) -> bool:
        """Another trial in this same worker, whose imports are there already. It begins with its first step: Tune may change its mind."""
        self._end("early")
        return True

    def cleanup(self) -> None:
        self._end("early")

    def _begin(self) -> None:
        self.values = self.job["fixed"] | json.loads(self._varied())
        tempfile.tempdir = None
        self.folder = place("trial")
        tempfile.tempdir = str(self.folder)  # all that the trial leaves behind when it is killed is in there
        self.events: queue.Queue = queue.Queue()
        self.known, self.over, self.epochs_done = 0.0, False, 0
        tags = self.job["tags"] | {
            "trial": self.trial_id, "values": self._varied(), "mlflow.parentRunId": self.job["parent"], "notebook": self.job["model"],
            "mlflow.source.type": "NOTEBOOK",
            "mlflow.source.name": f"notebooks/{self.job['model']}.ipynb", "process": f"{socket.gethostname()}:{os.getpid()}",
        }
        self.run = self.store.create_run(self.job["experiment"], run_name=f"{self.job['model']} {self.trial_id}", tags=tags).info.run_id
        os.environ["MLFLOW_RUN_ID"] = self.run
        self.thread = threading.Thread(target=self._execute, args=(self.values, self.folder, self.events), daemon=True)
        self.thread.start()

    def _varied(self) -> str:
        """What this trial tries, as JSON."""
        return json.dumps({name: getattr(value, "item", lambda value=value: value)() for name, value in self.config.items()}, sort_keys=True)

    def _earlier(self) -> dict:
        """The result of this very trial where a driver was killed just after it; what a lost node left open is closed."""
        from pipeline.tracking import client

        self.store = client()
        run, forgotten = self.job["lost"].get(self._varied(), ("", ""))
        if run and self.store.get_run(run).data.tags["trial"] == forgotten:  # Tune gave what that one had tried to this trial: the run is this one's now
            self.store.set_tag(run, "trial", self.trial_id)
        found = self.store.search_runs([self.job["experiment"]], f"tags.trial = '{self.trial_id}' and tags.sweep = '{self.job['tags']['sweep']}'")
        for run in found:
            if run.info.status == "RUNNING":
                self.store.set_terminated(run.info.run_id, "KILLED")
        return next((json.loads(run.data.tags["result"]) for run in found if "result" in run.data.tags), {})

    def _execute(self, values: dict, folder: Path, events: queue.Queue) -> None:
        from pipeline.stage.execute import execute

        try:
            done = execute(ROOT / "notebooks" / f"{self.job['model']}.ipynb", values, self.job["timeout"], output_root=folder, on_event=events.put)
        except Exception as error:  # the kernel could not even start: this trial fails, with these words
            done = None, f"{type(error).__name__}: {error}"
        events.put({"done": done})

    def step(self) -> dict:
        """The result of the next epoch; of the last one only once the notebook has ended."""
        if self.thread is None:
            if earlier := self._earlier():
                return earlier
            self._begin()
        while True:
            event = self.events.get()
            if "done" in event:
                return self._result(*event["done"])
            if "epoch" not in event:
                continue
            epoch, last = (int(part) for part in str(event["epoch"]).split("/"))
            metric = self.job["metric"]
            self.known, self.epochs_done = float(event.get(metric, event.get(metric.removeprefix("validation_"), 0.0))), epoch
            if epoch < last:
                return {metric: self.known, "epoch": epoch, "failed": 0, "run_id": self.run}

    def _result(self, executed, failure) -> dict:
        """The notebook's own final number, or how it failed: then the last number that was known."""
        metric, written = self.job["metric"], self.folder / "metrics" / f"{self.job['model']}.json"
        if not failure:
            self.known = json.loads(written.read_text(encoding="utf-8"))[metric]
        self._keep(executed)
        if failure:
            self.store.set_tag(self.run, "failure", str(failure)[:500])
        result = {
            metric: self.known, "epoch": self.epochs_done, "failed": int(bool(failure)), "failure": str(failure or "")[:500], "run_id": self.run, "done": True,
        }
        self.store.set_tag(self.run, "result", json.dumps(result))
        self._close("FAILED" if failure else "FINISHED")
        return result

    def _keep(self, executed) -> None:
        if executed is None:
            return
        import nbformat

        path = self.folder / f"{self.job['model']}.ipynb"
        path.write_text(nbformat.writes(executed) + "\n", encoding="utf-8")
        self.store.log_artifact(self.run, str(path), "notebook")

    def _close(self, status: str) -> None:
        if self.over:
            return
        self.over = True
        self.store.set_terminated(self.run, status)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, why: str) -> None:
        """Stop what still runs: the kernel first, then its run; the notebook as far as it came is kept."""
        if self.thread is None:
            return
        for child in psutil.Process().children(recursive=True):
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        self.thread.join(60)
        self.thread = None
        if self.over:
            return
        ended = [event["done"] for event in iter(lambda: self.events.get_nowait() if not self.events.empty() else None, None) if "done" in event]
        self._keep(ended[0][0] if ended else None)
        self.store.set_tag(self.run, "stopped", why)
        self._close("KILLED")
