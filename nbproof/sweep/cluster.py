"""The workers of a sweep as tasks of the Ray cluster at RAY_ADDRESS."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ray
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import nbproof
from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.runner import reaper
from nbproof.sweep.trial import EVERY, RETRIES, Job, work


class SharedJournal(JournalFileBackend):
    """The journal as an actor of Ray, on the machine where the sweep was started."""

    def read(self, start: int) -> list[dict]:
        """Return the records from number `start` on."""
        return list(self.read_logs(start))


class RayJournal(BaseJournalBackend):
    """The journal as other machines have it: through the cluster, which checks tokens."""

    def __init__(self, actor):
        self.actor = actor

    # While a task waits in ray.get, Ray gives its processors to the next task: a machine would
    # execute more trials than it has room for. Who waits for a future keeps them.
    def read_logs(self, log_number_from: int) -> list[dict]:
        return self.actor.read.remote(log_number_from).future().result()

    def append_logs(self, logs: list[dict]) -> None:
        self.actor.append_logs.remote(logs).future().result()


def work_there(job: Job, number: int, backend: BaseJournalBackend, variables: dict) -> None:
    """Execute trials on another machine, with `variables` in the environment."""
    os.environ |= variables
    with reaper.session() as session:
        work(job, number, backend, session)


def on_ray(job: Job) -> Iterator[None]:
    """Run workers until all have ended; yield while they work.

    As many tasks as trials: those without room wait for it, and end at once if no trial waits by
    then, so a node that joins is used. Ray starts one whose node is lost again.
    """
    variables = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    variables["MLFLOW_TRACKING_URI"] = tracking.address()
    with tempfile.TemporaryDirectory() as folder:
        _connect(job, Path(folder))
        try:
            node = ray.get_runtime_context().get_node_id()
            this_node = NodeAffinitySchedulingStrategy(node, soft=False)
            journal = ray.remote(SharedJournal).options(num_cpus=0, scheduling_strategy=this_node)
            backend = RayJournal(journal.remote(job.log))
            task = ray.remote(work_there).options(max_retries=RETRIES, **job.needs)
            # Variables go as data: Ray shows environments to whoever may look.
            waiting = [task.remote(job, worker, backend, variables)
                       for worker in range(job.wanted.trials)]
            while waiting:
                ready, waiting = ray.wait(waiting, timeout=EVERY)
                yield
                ray.get(ready)
        except ray.exceptions.RayError as error:
            reason = str(getattr(error, "cause", error)).strip().splitlines()[-1]
            raise UserError(reason) from None
        finally:
            ray.shutdown()


def _connect(job: Job, folder: Path) -> None:
    """Connect to the cluster; its workers get a copy, in `folder`, of what the stage depends on."""
    for name in ("project.yaml", "params.yaml", *job.wanted.stage.deps):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (root() / name).is_dir() else shutil.copy
        copy(root() / name, path)
    code = {"working_dir": str(folder), "py_modules": [str(Path(nbproof.__file__).parent)],
            "excludes": ["__pycache__"]}
    address = os.environ["RAY_ADDRESS"]
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():  # Ray itself would try for a quarter of an hour
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR",
                 configure_logging=False, runtime_env=code)
    except Exception as error:  # Ray raises bare Exception, too
        ray.shutdown()
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"Ray at {address} (RAY_ADDRESS; RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH is "
                        f"its token) cannot be reached: {reason}") from None
