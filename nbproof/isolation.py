"""The machinery's own processes without what a person has set for other Pythons: modules, warnings as errors."""

import os
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]  # of this nbproof, which .venv-serve finds by PYTHONPATH alone
HARMLESS = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONSAFEPATH"}


def isolate() -> None:
    """Let this program begin again in a clean environment, where this one is none."""
    kept = cleaned(dict(os.environ))
    if kept == dict(os.environ):
        return
    command = [sys.executable, *sys.orig_argv[1:]]
    for stream in filter(None, (sys.stdout, sys.stderr)):  # exec would drop what a sitecustomize has printed
        stream.flush()
    if os.name == "nt":  # which has no exec that the console waits for
        sys.exit(subprocess.run(command, env=kept).returncode)
    os.execve(command[0], command, kept)


def cleaned(variables: dict[str, str]) -> dict[str, str]:
    """`variables` without those that change what Python imports or how it behaves."""
    kept = {name: value for name, value in variables.items() if not name.startswith("PYTHON") or name in HARMLESS}
    given = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    return kept | ({"PYTHONPATH": str(HOME)} if HOME in [Path(each).resolve() for each in given] else {})
