"""The workers of a sweep as tasks of the Ray cluster at RAY_ADDRESS."""

import os
from collections.abc import Iterator

import ray
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.runner import reaper
from nbproof.sweep.trial import EVERY, Job, work
from nbproof.workspace.ray_cluster import connected

RETRIES = 3  # of a trial whose worker or node was lost


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
    """Execute a trial on another machine, with `variables` in the environment."""
    os.environ |= variables
    with reaper.session() as session:
        work(job, number, backend, session)


def on_ray(job: Job, numbers: list[int]) -> Iterator[None]:
    """Execute a trial for each number as a task of Ray; yield while they work.

    Tasks without room wait for it, so a node that joins is used; a lost one is started again.
    """
    variables = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    variables["MLFLOW_TRACKING_URI"] = tracking.address()
    with connected(job.wanted.stage.deps):
        try:
            node = ray.get_runtime_context().get_node_id()
            this_node = NodeAffinitySchedulingStrategy(node, soft=False)
            journal = ray.remote(SharedJournal).options(num_cpus=0, scheduling_strategy=this_node)
            backend = RayJournal(journal.remote(job.log))
            task = ray.remote(work_there).options(max_retries=RETRIES, **job.needs)
            # Variables go as data: Ray shows environments to whoever may look.
            waiting = [task.remote(job, number, backend, variables) for number in numbers]
            while waiting:
                ready, waiting = ray.wait(waiting, timeout=EVERY)
                yield
                ray.get(ready)
        except ray.exceptions.RayError as error:
            reason = str(getattr(error, "cause", error)).strip().splitlines()[-1]
            raise UserError(reason) from None
