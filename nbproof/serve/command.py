"""Starts the server: refuses what is not safe, says where it listens, and stops cleanly."""

import asyncio
import contextlib
import os
import socket
import sys
from dataclasses import dataclass

import uvicorn

from nbproof import project
from nbproof.notebook.errors import Refused
from nbproof.serve import log
from nbproof.serve.app import Application
from nbproof.serve.handler import Handler
from nbproof.serve.limits import Limits
from nbproof.serve.metrics import Metrics
from nbproof.serve.store import Store

TOKEN = "NBPROOF_TOKEN"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Options:
    """What a person may choose; nbproof/cli.py says what each is."""

    host: str = "127.0.0.1"
    port: int = 8000
    images: bool = False
    body: float = 8
    rate: float = -1
    seconds: float = 10
    concurrent: int = 64
    log_size: float = 256
    threads: int = 1


def serve(options: Options) -> int:
    """Serve until the process is told to end."""
    limits = _limits(options)
    listening = _socket(options.host, options.port)
    metrics = Metrics()
    kept = log.Log(log.place(), options.log_size, metrics.log_lost.inc)
    handler = Handler(Store(options.threads), kept, metrics, options.images)
    handler.start()
    application = Application(handler, limits)
    config = uvicorn.Config(
        application.app, log_level="warning", access_log=False, server_header=False, lifespan="on", ws="none",
        timeout_keep_alive=30, timeout_graceful_shutdown=int(limits.seconds) + 1, backlog=512,
    )
    sys.setswitchinterval(0.001)  # a model that is loaded beside lets requests pass
    shown = f"[{options.host}]" if ":" in options.host else options.host
    port = listening.getsockname()[1]
    print(f"{project.load().name} is served at http://{shown}:{port} "
          f"({'inputs are kept' if options.images else 'no inputs are kept'}, "
          f"{'a token is asked for' if limits.token else 'no token'}; Ctrl-C ends it).", file=sys.stderr, flush=True)
    loop = config.get_loop_factory()  # uvloop's, where it is
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=loop) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listening]))
    return 0


def _limits(options: Options) -> Limits:
    """The limits; Refused where they leave a server open that others can reach."""
    local, token = options.host in LOOPBACK, os.environ.get(TOKEN, "")
    if not local and not token:
        raise Refused(f"{options.host} can be reached from other machines: set the environment variable {TOKEN} to a "
                      "long random text, which clients send as Authorization: Bearer TEXT; or listen at 127.0.0.1.")
    if token and (len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token):
        raise Refused(f"{TOKEN} must have at least 16 characters of ASCII without spaces, such as `openssl rand "
                      "-hex 32` gives.")
    for name in ("body", "seconds", "concurrent", "log_size", "threads"):
        if getattr(options, name) <= 0:
            raise Refused(f"{name.upper()} must be more than 0, found {getattr(options, name)}.")
    rate = options.rate if options.rate >= 0 else (0 if local else 50)
    return Limits(int(options.body * 1e6), rate, options.seconds, options.concurrent, token, local)


def _socket(host: str, port: int) -> socket.socket:
    """A listening socket at the address; Refused where another program has it. Port 0 takes any that is free."""
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only so
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(512)  # what connects from now on waits for the model
    except (OSError, OverflowError) as error:
        raise Refused(f"{host}:{port} cannot be taken ({getattr(error, 'strerror', None) or error}): name another "
                      "port, such as PORT=8001.") from None
    return listening

