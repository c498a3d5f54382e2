"""Starts JupyterLab on the project; notebooks are saved as source and compute as a stage does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.runner.determinism import SETTINGS, tool_environment


def start(arguments: list[str], port: int = 0) -> int:
    """Open JupyterLab at `port` (0: the first free one from 8888); return its exit code."""
    if is_root() and "--allow-root" not in arguments:
        raise UserError("JupyterLab does not start for root, for whom a notebook may do anything: "
                        "be another user, or, in a container, nbproof lab --allow-root.")
    options = {
        "ServerApp.root_dir": root(),
        "ServerApp.contents_manager_class":
            "nbproof.workspace.contents_manager.SourceOnlyContents",
        "LabApp.default_url": "/lab/tree/README.md",
        "LabApp.app_settings_dir": Path(__file__).with_name("lab_settings"),
        "LanguageServerManager.autodetect": False,  # its search for language servers starts npm
    }
    if port:
        check_free(port)
        options |= {"ServerApp.port": port, "ServerApp.port_retries": 0}
    words = [f"--{key}={value}" for key, value in options.items()]
    command = [sys.executable, "-m", "jupyterlab", *words, *arguments]
    return subprocess.run(command, cwd=root(), env=environment(Path(sys.prefix))).returncode


def is_root() -> bool:
    return os.name == "posix" and os.geteuid() == 0


def environment(prefix: Path) -> dict[str, str]:
    """Return variables that keep JupyterLab out of the user's own Jupyter and IPython.

    One that is set already stays: JUPYTER_CONFIG_DIR=~/.jupyter brings a user's settings in. The
    server's kernels inherit the settings under which a stage computes.
    """
    own = prefix / "jupyter"
    folders = {
        "JUPYTER_CONFIG_DIR": own / "config", "JUPYTER_DATA_DIR": own / "data",
        "JUPYTER_RUNTIME_DIR": own / "runtime", "IPYTHONDIR": own / "ipython",
        "JUPYTER_CONFIG_PATH": prefix / "etc" / "jupyter",
        "JUPYTER_PATH": prefix / "share" / "jupyter",
    }
    defaults = {name: str(folder) for name, folder in folders.items()}
    modules = {"PYTHONPATH": str(root() / "notebooks")}  # for notebooks in folders below it
    return {"JUPYTER_PREFER_ENV_PATH": "1"} | defaults | tool_environment() | modules | SETTINGS


def check_free(port: int) -> None:
    """Raise UserError, which names a free one, where another program listens at `port`."""
    try:
        probe(port)
    except (OSError, OverflowError) as error:
        reason = str(error) if port not in range(1024, 65536) else "in use by another program"
        raise UserError(f"Port {port} cannot be taken ({reason}): {probe(0)} is free.") from None


def probe(port: int) -> int:
    """Return `port` of this machine, or a free one for 0; OSError where it cannot be taken."""
    with socket.socket() as taken:
        if os.name == "posix":  # a server that has just ended leaves its port waiting, not in use
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        return taken.getsockname()[1]
