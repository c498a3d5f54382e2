"""The same application on a Ray cluster; replicas, health, scaling and balancing are Ray Serve's.

One actor, on the machine of the project, has the log and reads the registry for all replicas, which
need no disk and no secret, and follow the aliases through it. They are not swapped by a new
user_config: `serve.run` would restart them all, since a person cannot name a deployment's version.
"""

import asyncio
import functools
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import ray
from fastapi import FastAPI
from ray import serve as ray_serve

import nbproof
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import CONTRACT, root
from nbproof.pipeline import config
from nbproof.serve.app import create
from nbproof.serve.follow import Follower
from nbproof.serve.log import LOG, Log
from nbproof.serve.options import Options
from nbproof.tracking import versions

QUIET = {"log_level": "WARNING", "enable_access_log": False}


class Home:
    """The one actor with the log and the registry; `variables` name the registry's server."""

    def __init__(self, folder: str, options: Options, variables: dict[str, str]):
        os.chdir(folder)
        os.environ |= variables
        self.log = Log(root() / LOG, options.log_size)

    def __del__(self):
        self.log.close()  # Ray Serve calls this when it ends the actor

    def call(self, name: str, *words):
        """Return what a function of the registry or a method of the log returns, in a thread."""
        return getattr(self.log if name in ("put", "label") else versions, name)(*words)


@ray_serve.ingress()
class Replica:
    """A process of the cluster that runs the models."""

    def __init__(self, home, options: Options):
        def call(name: str, *words):
            return home.call.remote(name, *words).result(timeout_s=30)

        self.options = options
        self.home = SimpleNamespace(put=functools.partial(home.call.remote, "put"), **{
            name: functools.partial(call, name) for name in ("current", "read", "label")})

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application: Ray Serve calls this after the constructor."""
        follower = Follower(self.options.threads, self.home)
        await asyncio.to_thread(follower.start)
        return create(follower, self.home, self.options)


def deployments(options: Options, here: dict) -> ray_serve.Application:
    """Return what Ray Serve deploys: Home, on the node with the resource `here`, and replicas."""
    fewest, most = map(int, options.replicas.split(":"))
    variables = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    home = ray_serve.deployment(Home).options(
        max_ongoing_requests=1000, logging_config=QUIET,
        ray_actor_options={"num_cpus": 0, "resources": here})
    replica = ray_serve.deployment(Replica).options(
        max_ongoing_requests=16, logging_config=QUIET, health_check_period_s=2,
        health_check_timeout_s=5, ray_actor_options={"num_cpus": options.threads},
        autoscaling_config={
            "min_replicas": fewest, "max_replicas": most, "target_ongoing_requests": 2,
            "upscale_delay_s": 3, "downscale_delay_s": 30})
    return replica.bind(home.bind(str(root()), options, variables), options)


def app(arguments: dict) -> ray_serve.Application:
    """Return what a RayService deploys (docs/production/rayservice.yaml), by its `args`."""
    return deployments(Options(**{"host": "0.0.0.0", **arguments}), {"log": 1})


def serve(options: Options) -> int:
    """Deploy on the cluster at RAY_ADDRESS; Ctrl-C or SIGTERM removes the application."""
    if versions.current("champion") is None:
        raise UserError("On a cluster the champion must be registered: nbproof promote does it.")
    with tempfile.TemporaryDirectory() as folder:
        for name in (CONTRACT, "params.yaml"):
            shutil.copy(root() / name, folder)
        shutil.copytree(root() / "notebooks", Path(folder) / "notebooks")
        _connect(folder)
        name, here = config.load().name, {f"node:{ray.util.get_node_ip_address()}": 0.001}
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            ray_serve.start(proxy_location="HeadOnly", logging_config=QUIET,
                            http_options={"host": options.host, "port": options.port})
            ray_serve.run(deployments(options, here), name=name)
            print(f"{name} is served at http://{options.host}:{options.port} of the cluster's "
                  "head (Ctrl-C ends it).", file=sys.stderr, flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
        finally:
            ray_serve.delete(name)
            if not ray_serve.status().applications:
                ray_serve.shutdown()  # its proxy would keep this port


def _connect(folder: str) -> None:
    """Connect to the cluster, whose nodes get nbproof and the project's sources in `folder`."""
    address = os.environ["RAY_ADDRESS"]
    host, _, port = address.rpartition(":")
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    code = {"working_dir": folder, "py_modules": [str(Path(nbproof.__file__).parent)],
            "excludes": ["__pycache__"]}
    try:
        socket.create_connection((host, int(port)), timeout=10).close()  # Ray tries for minutes
        ray.init(address, log_to_driver=False, logging_level="ERROR", runtime_env=code)
    except Exception as error:  # Ray raises bare Exception, too
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"Ray at {address} (RAY_ADDRESS) cannot be reached: {reason}. It must be "
                        "HOST:PORT, on a machine of the cluster.") from None
