"""The project's own Python: .venv with exactly the pinned packages. Needs nothing but Python's standard library."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from pipeline import ROOT, Refused

VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _stamp(prefix: Path, requirements: str) -> tuple[Path, str]:
    return prefix / f"{requirements}.sha256", hashlib.sha256((ROOT / requirements).read_bytes()).hexdigest()


def holds(prefix: Path, requirements: str) -> bool:
    """Whether the environment at `prefix` was installed from the requirements file as it is now."""
    stamp, digest = _stamp(prefix, requirements)
    return stamp.exists() and stamp.read_text() == digest


def ensure(*requirements: str) -> None:
    """Go on in an environment that holds `requirements`: this one, or .venv, made and filled first where it is not yet.

    Returns only in the right environment; otherwise the command is started again there.
    """
    if all(holds(Path(sys.prefix), each) for each in requirements):
        if Path(sys.prefix) == VENV:
            from pipeline import git, lab

            if lab.install():  # with the environment, and again when this project's wishes change
                git.set_up()
        return
    if sys.version_info < (3, 11):  # noqa: UP036 - ruff trusts pyproject, a user's python3 does not read it
        raise Refused(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: install one and name it (make PYTHON=python3.12 run).")
    for each in requirements:
        if not holds(VENV, each):
            _install(each)
    restart_in_venv()


def _install(requirements: str) -> None:
    if not PYTHON.exists():
        print("Making .venv", flush=True)
        _step([sys.executable, "-m", "venv", str(VENV)], "Python cannot make virtual environments here (on Debian and Ubuntu: apt install python3-venv).")
    print(f"Installing {requirements} into .venv (once; a few minutes, several GB with torch)", flush=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(ROOT / requirements)]
    _step(pip, f"pip could not install {requirements}, its own words stand above; run the same command again once the registry answers.")
    (VENV / "lab.sha256").unlink(missing_ok=True)  # a package may have put its own kernel.json over ours
    stamp, digest = _stamp(VENV, requirements)
    stamp.write_text(digest)


def _step(command: list[str], otherwise: str) -> None:
    if subprocess.run(command).returncode != 0:
        raise Refused(otherwise)


def restart_in_venv() -> None:
    """Start this command again with .venv's Python, and end with its exit code."""
    command = [str(PYTHON), "-m", "pipeline", *sys.argv[1:]]
    if os.name == "nt":  # Windows has no exec that the console waits for
        raise SystemExit(subprocess.run(command).returncode)
    os.execv(command[0], command)


def with_tools() -> dict[str, str]:
    """The environment variables for programs that must find this environment's own python, dvc and jupyter."""
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ | {"PATH": tools, "VIRTUAL_ENV": sys.prefix}
