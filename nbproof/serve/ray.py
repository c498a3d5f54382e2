"""The same application on a Ray cluster; replicas, health, scaling and balancing are Ray Serve's.

One actor, on the machine of the project, has the log and reads the registry for all replicas, which
need no disk and no secret, and follow the aliases through it. They are not swapped by a new
user_config: `serve.run` would restart them all, since a person cannot name a deployment's version.
"""

import asyncio
import functools
import logging
import os
import signal
import sys
import threading
from types import SimpleNamespace

import ray
from fastapi import FastAPI
from ray import serve as ray_serve

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import config
from nbproof.serve.app import create
from nbproof.serve.follow import Follower
from nbproof.serve.log import LOG, Log
from nbproof.serve.options import Options
from nbproof.tracking import versions
from nbproof.workspace.ray_cluster import connected


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
            try:
                return home.call.remote(name, *words).result(timeout_s=30)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None

        self.options = options
        self.home = SimpleNamespace(put=functools.partial(home.call.remote, "put"), **{
            name: functools.partial(call, name) for name in ("current", "read", "label")})

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application: Ray Serve calls this after the constructor."""
        follower = Follower(self.options.threads, self.home)
        await asyncio.to_thread(follower.start)
        threading.Thread(target=follower.watch, daemon=True).start()
        return create(follower, self.home, self.options)


def serve(options: Options) -> int:
    """Deploy on the cluster at RAY_ADDRESS; Ctrl-C or SIGTERM removes the application."""
    if versions.current("champion") is None:
        raise UserError("On a cluster the champion must be registered: nbproof promote does it.")
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    name = config.load().name
    with connected(["notebooks"]):
        try:
            ray_serve.start(proxy_location="HeadOnly",
                            http_options={"host": options.host, "port": options.port})
            ray_serve.run(_deployments(options), name=name)
            print(f"{name} is served at http://{options.host}:{options.port} of the cluster's "
                  "head (Ctrl-C ends it).", file=sys.stderr, flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
        finally:
            ray_serve.delete(name)
            if not ray_serve.status().applications:
                ray_serve.shutdown()  # its proxy would keep this port


def _deployments(options: Options) -> ray_serve.Application:
    """Return what Ray Serve deploys: Home, on this node, and replicas."""
    fewest, most = options.replicas
    variables = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    home = ray_serve.deployment(Home).options(max_ongoing_requests=1000, ray_actor_options={
        "num_cpus": 0, "resources": {f"node:{ray.util.get_node_ip_address()}": 0.001}})
    replica = ray_serve.deployment(Replica).options(
        max_ongoing_requests=16, ray_actor_options={"num_cpus": options.threads},
        autoscaling_config={"min_replicas": fewest, "max_replicas": most})
    return replica.bind(home.bind(str(root()), options, variables), options)
