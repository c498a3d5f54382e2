"""JupyterLab on the project: the files that it needs in the environment, and its start."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root, write_whole
from nbproof.runner import determinism
from nbproof.workspace.bootstrap import with_tools
from nbproof.workspace.contents import kernel_name

SERVER = """\
# Written by `nbproof lab`: notebooks are saved as source, so that looking at one changes nothing.
c.ServerApp.contents_manager_class = "nbproof.workspace.contents.Contents"
c.LanguageServerManager.autodetect = False  # none is installed; the search for them starts npm
"""
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
}


def files(prefix: Path, python: str) -> dict[Path, str]:
    """What Jupyter finds below `prefix`: the save hook, settings, and the kernel `python3` with the project's name.

    The kernel keeps Jupyter's own id, so that a notebook opens with it here and in any other place that has a Python.
    """
    kernel = {
        "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": kernel_name(), "language": "python", "kernel_protocol_version": "5.5",
        "env": determinism.SETTINGS,
        "metadata": {"debugger": True, "supported_encryption": ["curve"]},  # what ipykernel says of itself
    }
    share = prefix / "share" / "jupyter"
    return {
        prefix / "etc" / "jupyter" / "jupyter_server_config.py": SERVER,
        share / "kernels" / "python3" / "kernel.json": json.dumps(kernel, indent=1) + "\n",
        share / "lab" / "settings" / "overrides.json": json.dumps(SETTINGS, indent=1) + "\n",
    }


def variables(prefix: Path) -> dict[str, str]:
    """The environment variables of a JupyterLab that neither reads nor writes the user's own Jupyter and IPython.

    One that is set already stays: JUPYTER_CONFIG_DIR=~/.jupyter brings a user's own settings in.
    """
    own = prefix / "jupyter"
    mine = {
        "JUPYTER_CONFIG_DIR": own / "config", "JUPYTER_DATA_DIR": own / "data", "JUPYTER_RUNTIME_DIR": own / "runtime",
        "IPYTHONDIR": own / "ipython", "JUPYTER_CONFIG_PATH": prefix / "etc" / "jupyter",
        "JUPYTER_PATH": prefix / "share" / "jupyter",
    }
    return {"JUPYTER_PREFER_ENV_PATH": "1"} | {name: str(path) for name, path in mine.items()} | with_tools()


def check_free(port: int) -> None:
    """UserError where another program listens at `port` of this machine."""
    with socket.socket() as probe:
        if os.name == "posix":  # a server that has just ended leaves its port waiting, and not in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            reason = "in use by another program" if port in range(1024, 65536) else getattr(error, "strerror", error)
            raise UserError(f"Port {port} cannot be taken ({reason}): name another one, such as PORT=8899.") from None


def start(arguments: list[str], port: int = 0) -> int:
    """Open JupyterLab on the project, the README first, at `port` (0: the first free one from 8888); its exit code."""
    if port:
        check_free(port)
        arguments = [f"--port={port}", "--ServerApp.port_retries=0", *arguments]
    prefix = Path(sys.prefix)
    for path, text in files(prefix, sys.executable).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text)
    options = {
        "ServerApp.root_dir": root(), "LabApp.default_url": "/lab/tree/README.md",
        "LabApp.app_settings_dir": prefix / "share" / "jupyter" / "lab" / "settings",
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{key}={value}" for key, value in options.items()), *arguments]
    return subprocess.run(command, cwd=root(), env=variables(prefix)).returncode
