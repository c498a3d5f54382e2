"""Connects to the Ray cluster at RAY_ADDRESS: for the workers of a sweep, and for servers."""

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import ray

import nbproof
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import CONTRACT, root


@contextlib.contextmanager
def connected(names: Iterable[str]) -> Iterator[None]:
    """Connect for the block; nodes get nbproof, and copies of the project's files at `names`."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (CONTRACT, "params.yaml", *names):
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (root() / name).is_dir() else shutil.copy
            copy(root() / name, path)
        try:
            _connect(folder)
            yield
        finally:
            ray.shutdown()


def _connect(folder: str) -> None:
    code = {"working_dir": folder, "py_modules": [str(Path(nbproof.__file__).parent)],
            "excludes": ["__pycache__"]}
    address = os.environ["RAY_ADDRESS"]
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():  # Ray itself would try for a quarter of an hour
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR",
                 configure_logging=False, runtime_env=code)
    except Exception as error:  # Ray raises bare Exception, too
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"Ray at {address} (RAY_ADDRESS; RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH is "
                        f"its token) cannot be reached: {reason}") from None
