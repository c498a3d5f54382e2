"""The small Python environment of servers: without MLflow, DVC or a framework that trains."""

import os
import subprocess
import sys
from pathlib import Path

from nbproof.workspace import bootstrap

SMALL, RAY = ".venv-serve", ".venv-serve-ray"
LOCKS = {
    SMALL: ["requirements/serve.txt"],
    RAY: ["requirements/serve.txt", "requirements/serve-ray.txt"],
}
HOME = Path(__file__).resolve().parents[2]


def enter(root: Path) -> None:
    """Run this command again in the environment of servers, which is made where it is not there.

    Return at once where this process runs in it. RAY_ADDRESS asks for the one with Ray Serve.
    """
    name = RAY if os.environ.get("RAY_ADDRESS") else SMALL
    if Path(sys.prefix).name in (name, RAY):
        return
    python = str(bootstrap.set_up(root, name, LOCKS[name]) / bootstrap.PYTHON)
    command = [python, "-m", "nbproof", *sys.argv[1:]]
    own = {"PYTHONPATH": str(HOME)} if (HOME / "pyproject.toml").exists() else {}  # not installed
    if os.name == "nt":  # without an exec that the console waits for
        sys.exit(subprocess.run(command, env=os.environ | own).returncode)
    os.execve(python, command, os.environ | own)
