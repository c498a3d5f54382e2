"""Starts the server: refuses what is not safe, says where it listens, and stops cleanly."""

import asyncio
import contextlib
import gc
import os
import socket
import sys
from collections.abc import Iterator

import uvicorn

from nbproof.notebook.errors import UserError
from nbproof.pipeline import config
from nbproof.serve.app import Application
from nbproof.serve.handler import Handler
from nbproof.serve.metrics import Metrics
from nbproof.serve.options import Options
from nbproof.serve.store import Store


def serve(options: Options) -> int:
    """Serve until the process is told to end."""
    limits = options.limits()
    if options.replicas and not os.environ.get("RAY_ADDRESS"):
        raise UserError("--replicas is for a cluster: set RAY_ADDRESS, too.")
    listening = _socket(options.host, options.port)
    with _handler(options, listening.getsockname()[1]) as handler:
        handler.start()
        application = Application(handler, limits)
        settings = uvicorn.Config(
            application.app, log_level="warning", access_log=False, server_header=False, lifespan="on", ws="none",
            timeout_keep_alive=30, timeout_graceful_shutdown=int(limits.seconds) + 1, backlog=512,
        )
        gc.freeze()  # what is there now stays: to look through it for garbage would keep requests waiting
        sys.setswitchinterval(0.001)  # a model that is loaded beside lets requests pass
        shown = f"[{options.host}]" if ":" in options.host else options.host
        kept = "inputs are kept" if options.images else "no inputs are kept"
        token = "a token is asked for" if limits.token else "no token"
        place = f"http://{shown}:{listening.getsockname()[1]}"
        print(f"{config.load().name} is served at {place} ({kept}, {token}; Ctrl-C ends it).", file=sys.stderr,
              flush=True)
        loop = settings.get_loop_factory()  # uvloop's, where it is
        with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=loop) as runner:
            runner.run(uvicorn.Server(settings).serve(sockets=[listening]))
    return 0


@contextlib.contextmanager
def _handler(options: Options, port: int) -> Iterator[Handler]:
    """The handler: it asks the models here, or on the cluster at RAY_ADDRESS, which has them for the block."""
    metrics = Metrics()
    if os.environ.get("RAY_ADDRESS"):
        from nbproof.serve import ray

        with ray.deployment(options, port) as replicas:
            yield ray.Spread(replicas, options, options.kept(metrics), metrics)
    else:
        yield Handler(Store(options.threads), options.kept(metrics), metrics, options.images)


def _socket(host: str, port: int) -> socket.socket:
    """A listening socket at the address; UserError where another program has it. Port 0 takes any that is free."""
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only so
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(512)  # what connects from now on waits for the model
    except (OSError, OverflowError) as error:
        raise UserError(f"{host}:{port} cannot be taken ({getattr(error, 'strerror', None) or error}): name another "
                      "port, such as --port 8001.") from None
    return listening

