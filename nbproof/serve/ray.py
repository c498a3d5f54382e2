"""The same application on a Ray cluster; replicas, health, scaling and retries are Ray Serve's.

`nbproof serve` follows the registry and hands each swap to all replicas as their user_config. One
actor, on the machine of the project, has the log and reads the registry for them: replicas need no
disk and no secret. A RayService deploys `app`, whose replicas follow the registry themselves.
"""

import asyncio
import os
import shutil
import socket
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import ray
from fastapi import FastAPI
from ray import serve as ray_serve
from ray.exceptions import RayError

import nbproof
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import CONTRACT, root
from nbproof.pipeline import config
from nbproof.serve import app as application
from nbproof.serve.follow import Follower, Pair
from nbproof.serve.log import Log, log_path
from nbproof.serve.metrics import Metrics
from nbproof.serve.model import read_file
from nbproof.serve.options import Limits, Options
from nbproof.tracking import versions
from nbproof.tracking.versions import ModelVersion, RegistryError

QUIET = {"log_level": "WARNING", "enable_access_log": False}


class Home:
    """The one actor with the log and the registry; `variables` name the registry's server."""

    def __init__(self, folder: str, options: Options, variables: dict[str, str]):
        os.chdir(folder)
        os.environ |= variables
        self.log = Log(log_path(), options.log_size)

    async def current(self, alias: str) -> ModelVersion | None:
        return await asyncio.to_thread(versions.current, alias)

    async def read(self, version: ModelVersion, path: str) -> bytes | None:
        return await asyncio.to_thread(read_file, version, path)

    async def put(self, command: str, rows: list[dict]) -> None:
        self.log.put(command, rows)

    async def label(self, id: str, label: str) -> None:
        await asyncio.wrap_future(self.log.label(id, label))


class Remote:
    """What Home has, for a replica: `current` and `read` in a thread, `put` and `label`."""

    def __init__(self, home):
        self.home = home

    def current(self, alias: str) -> ModelVersion | None:
        return self._result(self.home.current.remote(alias))

    def read(self, version: ModelVersion, path: str) -> bytes | None:
        return self._result(self.home.read.remote(version, path))

    def put(self, command: str, rows: list[dict]) -> None:
        self.home.put.remote(command, rows)

    async def label(self, id: str, label: str) -> None:
        await self.home.label.remote(id, label)

    def _result(self, response):
        try:
            return response.result(timeout_s=30)
        except (RayError, TimeoutError) as error:
            raise RegistryError(f"its actor does not respond: {error}"[:200]) from None


class Replica:
    """A process of the cluster that runs the models."""

    current: "Replica"  # of this process

    def __init__(self, home, options: Options, limits: Limits):
        Replica.current, self.metrics = self, Metrics()
        self.home, self.options, self.limits = Remote(home), options, limits
        self.follower = Follower(self.metrics, options.threads, self.home)

    async def reconfigure(self, wanted: dict) -> None:
        """Swap to the versions that are wanted by alias; Ray Serve calls this, at the start, too."""
        if wanted:
            pair = [version and ModelVersion(**version) for version in wanted.values()]
            problem = await asyncio.to_thread(self.follower.follow, *pair)
        else:
            problem = await asyncio.to_thread(self.follower.start)
        if self.follower.pair is None:
            raise RuntimeError(problem)


def build() -> FastAPI:
    """Return a replica's application; Ray Serve calls this after the replica's constructor."""
    replica = Replica.current
    return application.create(replica.follower, replica.home, replica.home.label, replica.metrics,
                              replica.options, replica.limits)


def deployments(options: Options, here: dict, pair: Pair | None = None) -> ray_serve.Application:
    """Return what Ray Serve deploys: Home, on the node with the resource `here`, and replicas."""
    fewest, most = options.between()
    wanted = {} if pair is None else {
        alias: model and asdict(model.version) for alias, model in vars(pair).items()}
    variables = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    home = ray_serve.deployment(Home).options(
        ray_actor_options={"num_cpus": 0, "resources": here}, logging_config=QUIET)
    replica = ray_serve.deployment(ray_serve.ingress(build)(Replica)).options(
        name="Replica", user_config=wanted, logging_config=QUIET, max_ongoing_requests=16,
        ray_actor_options={"num_cpus": options.threads}, health_check_period_s=2,
        health_check_timeout_s=5, autoscaling_config={
            "min_replicas": fewest, "max_replicas": most, "target_ongoing_requests": 2,
            "upscale_delay_s": 3, "downscale_delay_s": 30})
    return replica.bind(home.bind(str(root()), options, variables), options, options.limits())


def app(arguments: dict) -> ray_serve.Application:
    """Return what a RayService deploys (docs/production/rayservice.yaml), by its `args`."""
    return deployments(Options(**{"host": "0.0.0.0", **arguments}), {"log": 1})


def serve(options: Options) -> int:
    """Deploy on the cluster at RAY_ADDRESS, and follow the registry until Ctrl-C or SIGTERM."""
    options.between(), options.limits()
    follower = Follower(Metrics(), options.threads)
    with tempfile.TemporaryDirectory() as folder:
        for name in (CONTRACT, "params.yaml"):
            shutil.copy(root() / name, folder)
        shutil.copytree(root() / "notebooks", Path(folder) / "notebooks")
        _connect(folder)
        name, deployed = config.load().name, None
        follower.start()
        here = {f"node:{ray.util.get_node_ip_address()}": 0.001}
        try:
            ray_serve.start(proxy_location="HeadOnly", logging_config=QUIET,
                            http_options={"host": options.host, "port": options.port})
            while True:
                if follower.pair is not deployed:
                    pair = follower.pair
                    ray_serve.run(deployments(options, here, pair), name=name)
                    if deployed is None:
                        print(f"{name} is served at http://{options.host}:{options.port} of the "
                              "cluster's head (Ctrl-C ends it).", file=sys.stderr, flush=True)
                    deployed = pair
                time.sleep(0.2)
        except KeyboardInterrupt:
            return 0
        finally:
            follower.close()
            ray_serve.delete(name)


def _connect(folder: str) -> None:
    """Connect to the cluster, whose nodes get nbproof and the project's sources in `folder`."""
    address = os.environ["RAY_ADDRESS"]
    host, _, port = address.rpartition(":")
    code = {"working_dir": folder, "py_modules": [str(Path(nbproof.__file__).parent)],
            "excludes": ["__pycache__"]}
    try:
        socket.create_connection((host, int(port)), timeout=10).close()  # Ray tries for minutes
        ray.init(address, log_to_driver=False, logging_level="ERROR", runtime_env=code)
    except Exception as error:  # Ray raises bare Exception, too
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"Ray at {address} (RAY_ADDRESS) cannot be reached: {reason}. It must be "
                        "HOST:PORT, on a machine of the cluster.") from None
