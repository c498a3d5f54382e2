"""Starts the server of this machine, prints its address, and stops it cleanly."""

import contextlib
import gc
import socket
import sys
import threading

import uvicorn

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import config
from nbproof.serve import app
from nbproof.serve.connections import Connection
from nbproof.serve.follow import Follower
from nbproof.serve.log import LOG, Log
from nbproof.serve.options import Options


def serve(options: Options) -> int:
    """Serve until Ctrl-C or SIGTERM; UserError where the port is taken."""
    try:  # before the model is loaded: clients that connect from now on wait for it
        listening = socket.create_server((options.host, options.port), backlog=512)
    except OSError as error:
        raise UserError(f"Cannot listen at {options.host}:{options.port} ({error}): name another "
                        "port; --port 0 takes one that is free.") from None
    # Often 1,024 at first: as many connections without a request would keep out all others.
    with contextlib.suppress(ImportError, ValueError):  # Windows; macOS names no limit and has one
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    follower = Follower(options.threads)
    follower.start()
    threading.Thread(target=follower.watch, daemon=True).start()
    log = Log(root() / LOG, options.log_size)
    settings = uvicorn.Config(
        app.create(follower, log, options), http=Connection, ws="none", log_level="warning",
        access_log=False, server_header=False, timeout_graceful_shutdown=int(options.seconds) + 1)
    gc.freeze()  # to look through what is there from the start would keep requests waiting
    inputs = "inputs are logged" if options.images else "no inputs are logged"
    token = "a token is needed" if options.token else "no token"
    print(f"{config.load().name} is served at http://{options.host}:{listening.getsockname()[1]} "
          f"({inputs}, {token}; Ctrl-C ends it).", file=sys.stderr, flush=True)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[listening])
    finally:
        log.close()
    return 0
