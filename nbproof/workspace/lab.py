"""Starts JupyterLab on the project; notebooks are saved as source and compute as a stage does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.runner.determinism import SETTINGS, tool_environment


def start(arguments: list[str]) -> int:
    """Open JupyterLab, which gets `arguments`; return its exit code."""
    options = {
        "ServerApp.root_dir": root(),
        "ContentsManager.pre_save_hook": "nbproof.runner.source.save_source_only",
        "LabApp.default_url": "/lab/tree/README.md",
        "LabApp.app_settings_dir": Path(__file__).with_name("lab_settings"),
        "LanguageServerManager.autodetect": False,  # its search for language servers starts npm
    }
    words = [f"--{key}={value}" for key, value in options.items()]
    command = [sys.executable, "-m", "jupyterlab", *words, *arguments]
    if os.name != "nt":  # which has no exec that the console waits for
        os.chdir(root())
        os.execve(sys.executable, command, environment(Path(sys.prefix)))
    return subprocess.run(command, cwd=root(), env=environment(Path(sys.prefix))).returncode


def environment(prefix: Path) -> dict[str, str]:
    """Return variables that keep JupyterLab out of the user's own Jupyter and IPython.

    One that is set already stays: JUPYTER_CONFIG_DIR=~/.jupyter brings a user's settings in. The
    server's kernels inherit the settings under which a stage computes.
    """
    own = {f"JUPYTER_{kind}_DIR": str(prefix / "jupyter" / kind.lower())
           for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"IPYTHONDIR": str(prefix / "jupyter" / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1"}
    modules = {"PYTHONPATH": str(root() / "notebooks")}  # for notebooks in folders below it
    return own | tool_environment() | modules | SETTINGS


def check_free(port: int) -> None:
    """Raise UserError, which names a free one, where another program listens at `port`."""
    with socket.socket() as caller, socket.create_server(("127.0.0.1", 0)) as free:
        if caller.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"Port {port} is in use by another program: {free.getsockname()[1]} "
                            "is free.")
