"""Starts the server of this machine, prints its address, and stops it cleanly."""

import contextlib
import gc
import socket
import sys

import uvicorn

from nbproof.notebook.errors import UserError
from nbproof.pipeline import config
from nbproof.serve import app
from nbproof.serve.connections import Connection
from nbproof.serve.follow import Follower
from nbproof.serve.log import Log, log_path
from nbproof.serve.metrics import Metrics
from nbproof.serve.options import Options


def serve(options: Options) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    options = options.checked()
    if options.replicas:
        raise UserError("--replicas is for a cluster: set RAY_ADDRESS, too.")
    listening = _listen(options.host, options.port)
    metrics = Metrics()
    follower = Follower(metrics, options.threads)
    follower.start()
    log = Log(log_path(), options.log_size, metrics.log_lost.inc)
    settings = uvicorn.Config(
        app.create(follower, log, metrics, options), http=Connection, ws="none",
        log_level="warning", access_log=False, server_header=False, lifespan="on", backlog=512,
        timeout_keep_alive=30, timeout_graceful_shutdown=int(options.seconds) + 1)
    gc.freeze()  # to look through what is there from the start would keep requests waiting
    name = f"[{options.host}]" if ":" in options.host else options.host
    inputs = "inputs are logged" if options.images else "no inputs are logged"
    token = "a token is needed" if options.token else "no token"
    print(f"{config.load().name} is served at http://{name}:{listening.getsockname()[1]} "
          f"({inputs}, {token}; Ctrl-C ends it).", file=sys.stderr, flush=True)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[listening])
    finally:
        follower.close()
        log.close()
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, port 0 is any free one; UserError where the port is taken."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio switches Nagle's delay off only where the protocol is named.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(512)  # clients that connect from now on wait for the model
    except (OSError, OverflowError) as error:
        raise UserError(f"Cannot listen at {host}:{port} ({error}): name another port, such as "
                        "--port 8001.") from None
    return listening
