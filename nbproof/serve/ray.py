"""The same handler where one machine ends: the models are asked on the nodes of a Ray cluster, by Ray Serve.

One process has the page, the limits and the log, follows the registry, and checks each model first: `nbproof serve` on
a machine of the cluster, or the deployment that `app` makes for a RayService. Replicas on all nodes get the model from
it by Ray's object store, so they need no registry and no credentials. To ask a model changes nothing, so a question
whose replica is lost or silent is asked again; a label goes to the log alone, once.
"""

import asyncio
import contextlib
import functools
import io
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError

import nbproof
from nbproof.notebook.errors import UserError
from nbproof.pipeline import config
from nbproof.serve import log
from nbproof.serve.app import Application
from nbproof.serve.errors import Trouble
from nbproof.serve.handler import BATCH, Handler, together
from nbproof.serve.metrics import Metrics
from nbproof.serve.model import Answers, Facts, Portable
from nbproof.serve.options import Options
from nbproof.serve.store import Store
from nbproof.sweep import cluster

HELD = 4  # models in the memory of a replica: champion and shadow, and those before them
EACH = 2  # questions to a replica at a time: it answers one, and has the next
SEVERAL = 3  # replicas that may be asked the same at a time
LOSSES = 10  # replicas that a question may lose
PATIENCE = 5  # seconds for all replicas to take a model; who is later takes it with its first question
QUIET = {"log_level": "WARNING", "enable_access_log": False}
ROOM = 120  # seconds for the cluster to find room


@dataclass(frozen=True)
class Parcel:
    """A model for a replica. `content` is a list, so that Ray hands over the reference in it and not the bytes."""

    facts: Facts
    digest: str
    content: list
    threads: int

    @property
    def key(self) -> tuple[str, str, str]:
        return self.facts.version, self.facts.name, self.digest


class Replica:
    """On a node: holds the models that it was last asked about, and answers."""

    def __init__(self):
        self.models: OrderedDict[tuple, Portable] = OrderedDict()
        self.loads, self.worker, self.loader = asyncio.Lock(), ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    async def hold(self, parcels: list[Parcel]) -> dict:
        """Load what is not held yet: which models this replica holds now, and where it is."""
        context, refused = ray.get_runtime_context(), {}
        try:
            for parcel in parcels:
                await self._model(parcel)
        except UserError as error:
            refused = {"refused": str(error)}
        return {"replica": context.get_actor_id(), "node": context.get_node_id(),
                "holds": [" ".join(key[:2]) for key in self.models]} | refused

    async def ask(self, parcel: Parcel, inputs: dict[str, np.ndarray]) -> Answers:
        """The answers of the model of `parcel`, which is loaded and checked first if it is not held."""
        model = await self._model(parcel)
        if model.quick:
            return model.ask(inputs)
        return await asyncio.get_running_loop().run_in_executor(self.worker, model.ask, inputs)

    async def _model(self, parcel: Parcel) -> Portable:
        if parcel.key not in self.models:
            async with self.loads:
                if parcel.key not in self.models:
                    content = await parcel.content[0]
                    self.models[parcel.key] = await asyncio.get_running_loop().run_in_executor(
                        self.loader, Portable, content, parcel.facts, parcel.threads)
        self.models.move_to_end(parcel.key)
        while len(self.models) > HELD:
            self.models.popitem(last=False)
        return self.models[parcel.key]


class Far(Portable):
    """A model that is checked here and asked on the replicas, which have all loaded it before it answers."""

    def __init__(self, replicas, content: bytes, facts: Facts, threads: int = 1):
        super().__init__(content, facts, threads)
        self.parcel = Parcel(facts, self.digest, [ray.put(content)], threads)
        for each in told(replicas, [self.parcel]):
            if "refused" in each:
                raise UserError(f"{each['refused'].rstrip('.')}, on the node {each['node']}.")


def told(replicas, parcels: list[Parcel]) -> list[dict]:
    """Have all replicas hold the models of `parcels`: what they say of it; nothing where one of them is silent."""
    try:
        said = replicas.broadcast("hold", parcels).results(timeout_s=PATIENCE, return_exceptions=True)
    except TimeoutError:
        return []
    return [each for each in said if isinstance(each, dict)]  # the others are lost


class Spread(Handler):
    """The handler whose models answer on the cluster."""

    def __init__(self, replicas, options: Options, log: log.Log, metrics: Metrics):
        store = Store(options.threads, functools.partial(Far, replicas))
        super().__init__(store, log, metrics, options.images)
        self.replicas, self.seconds, self.held = replicas, options.seconds, []
        self.now, self.most = 0, EACH * options.between()[1]
        self.loop: asyncio.AbstractEventLoop | None = None

    def about(self) -> dict:
        """Which models the replicas hold."""
        return {"replicas": self.held}

    def look(self) -> None:
        """The same, and replicas that are new load what answers now."""
        super().look()
        if self.serving:
            pair = (self.serving.champion, self.serving.shadow)
            self.held = told(self.replicas, [each.parcel for each in pair if each])

    def _next(self) -> None:
        """Ask at once what keeps all replicas busy; what comes meanwhile waits and is asked together."""
        self.loop = asyncio.get_running_loop()
        while self._waiting and self.now < self.most:
            self.now += 1
            batch = self._batch(BATCH)
            task = self.loop.create_task(self._within(batch[0].serving.champion, together(batch)))
            task.add_done_callback(functools.partial(self._came, batch))

    def _came(self, batch: list, task: asyncio.Task) -> None:
        self.now -= 1
        self._delivered(batch, task)

    def _says(self, shadow: Portable, part: dict[str, np.ndarray]) -> Answers:
        return asyncio.run_coroutine_threadsafe(self._within(shadow, part), self.loop).result()

    async def _within(self, model: Far, part: dict[str, np.ndarray]) -> Answers:
        """TimeoutError where nobody waits for the answers any more."""
        async with asyncio.timeout(self.seconds):
            return await self._asked(model, part)

    async def _asked(self, model: Far, part: dict[str, np.ndarray]) -> Answers:
        """The answers of the replica that gives them first: where one is lost or silent, another is asked, too."""
        asked, lost = set(), 0
        try:
            while True:
                asked.add(asyncio.ensure_future(_answer(self.replicas.ask.remote(model.parcel, part))))
                done, _ = await asyncio.wait(asked, timeout=self.seconds / 5 if len(asked) < SEVERAL else None,
                                             return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    if not _lost(each.exception()):
                        return each.result()
                asked -= done
                lost += len(done)
                if lost > LOSSES:
                    raise Trouble(503, "INTERNAL_ERROR", "The cluster loses its replicas: try again later.")
                self.metrics.again.inc()
                await asyncio.sleep(0.05 * lost)
        finally:
            for each in asked:
                each.cancel()


async def _answer(response) -> Answers:
    """What a replica says; it is told where nobody waits for that any more."""
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise


def _lost(error: BaseException | None) -> bool:
    """Whether `error` is of the replica or its node, and not of the model."""
    if isinstance(error, RayTaskError):
        return isinstance(error.cause, UserError)  # of a node on which the model fails its check
    return isinstance(error, RayError | serve.exceptions.RayServeException)


def _replicas(options: Options) -> serve.Application:
    least, most = options.between()
    return serve.deployment(Replica).options(
        name="replica", logging_config=QUIET, max_ongoing_requests=16, ray_actor_options={"num_cpus": options.threads},
        autoscaling_config={"min_replicas": least, "initial_replicas": least, "max_replicas": most,
                            "target_ongoing_requests": EACH, "upscale_delay_s": 3, "downscale_delay_s": 30,
                            "metrics_interval_s": 1, "look_back_period_s": 5},
        health_check_period_s=2, health_check_timeout_s=5, graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.5).bind()


@contextlib.contextmanager
def deployment(options: Options, port: int) -> Iterator:
    """The replicas, on the cluster at RAY_ADDRESS for the block; what else is there stays as it is."""
    options.between()
    if os.environ["RAY_ADDRESS"].startswith("ray://"):
        raise UserError("RAY_ADDRESS must be HOST:PORT here, on a machine of the cluster: questions do not go by ray://.")
    name = f"{config.load().name}-{cluster.MACHINE}-{port}"
    logging.getLogger("ray").setLevel(logging.ERROR)
    with cluster.connected({"py_modules": [str(Path(nbproof.__file__).parent)], "excludes": ["__pycache__"]}):
        logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
        try:
            with _quiet():
                alone = not serve.status().applications
                serve.start(proxy_location="Disabled")
        except RayError as error:
            raise UserError(f"The cluster cannot run Ray Serve ({_end_of(error)}): its nodes need what "
                          "requirements/serve-ray.txt lists.") from None
        try:
            target = serve.RunTarget(_replicas(options), name, route_prefix=None)
            replicas, = serve.run_many([target], wait_for_applications_running=False)
            _wait(name, options)
            yield replicas
        finally:
            serve.delete(name)
            if alone and not serve.status().applications:
                with _quiet():
                    serve.shutdown()


def _quiet():
    """Without what Ray prints of a controller that does not answer: it is not there yet, or no longer."""
    return contextlib.redirect_stdout(io.StringIO())


def _wait(name: str, options: Options) -> None:
    """Wait until the least number of replicas runs."""
    ends = time.monotonic() + ROOM
    while (now := serve.status().applications[name]).status != "RUNNING":
        if now.status == "DEPLOY_FAILED":
            raise UserError(f"The cluster cannot run the replicas: {_end_of(now.deployments['replica'].message)}.")
        if time.monotonic() > ends:
            raise UserError(f"The cluster has no room for {options.between()[0]} replicas with {options.threads} "
                          f"processors each ({ROOM} s were waited for): name fewer (--replicas 1:4), or add nodes.")
        time.sleep(0.2)


def _end_of(told: object) -> str:
    """The last line of what Ray tells, which after a traceback is the reason."""
    return str(told).strip().splitlines()[-1].strip().rstrip(".")[:300]


@serve.ingress()
class Ingress:
    """The page, the limits and the log inside of the cluster, on the one node where the log is."""

    async def __init__(self, replicas, options: Options):
        limits, metrics = options.limits(), Metrics()
        self.handler = Spread(replicas, options, options.kept(metrics), metrics)
        await asyncio.to_thread(self.handler.start)
        self.limits = limits

    def __serve_build_asgi_app__(self):
        return Application(self.handler, self.limits).app


def app(options: dict) -> serve.Application:
    """The `import_path` of docs/production/rayservice.yaml; its `args` are the options of `nbproof serve`."""
    chosen = Options(**{"host": "0.0.0.0", **options})
    ingress = serve.deployment(Ingress).options(name="ingress", logging_config=QUIET,
                                                max_ongoing_requests=2 * chosen.concurrent)
    return ingress.bind(_replicas(chosen), chosen)
