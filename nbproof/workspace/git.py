"""Sets git up for notebooks, in this clone only: commits of source, diffs and merges by cells.

.gitattributes names a filter and a driver of nbproof and two drivers of nbdime; git looks their
commands up in the clone's configuration. `nbdime config-git` would write commands that need .venv
on the PATH.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root

PYTHON = f"{shlex.quote(Path(sys.executable).as_posix())} -m"
SETTINGS = {
    "filter.nbproof.clean": f"{PYTHON} nbproof.runner.source",
    "diff.jupyternotebook.command": f"{PYTHON} nbdime.vcs.git.diffdriver diff",
    "merge.jupyternotebook.driver": f"{PYTHON} nbdime.vcs.git.mergedriver merge %O %A %B %L %P",
    "merge.nbproof-lock.driver": f"{PYTHON} nbproof.workspace.merge %O %A %B",
}
ATTRIBUTES = (
    "*.ipynb filter=nbproof diff=jupyternotebook merge=jupyternotebook",
    "dvc.lock merge=nbproof-lock",
    "metrics/* merge=nbproof-lock",
)


def set_up() -> int:
    """Let git show and merge notebooks by cells and commit their source; return 0."""
    if "filter: nbproof" not in _git("check-attr", "filter", "notebooks/name.ipynb"):
        raise UserError(f".gitattributes names no filter for notebooks: add {ATTRIBUTES[0]}")
    for key, command in SETTINGS.items():
        _git("config", "--local", key, command)
    print("In this clone git shows and merges notebooks by cells and commits their source only.")
    return 0


def _git(*words: str) -> str:
    """Return what git prints in the project. Raise UserError with git's reason where it fails."""
    done = subprocess.run(["git", *words], cwd=root(), capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"git {' '.join(words)} failed: {' '.join(done.stderr.split())}")
    return done.stdout
