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
OURS = ("-m nbproof.", "-m nbdime.vcs.git.")


def set_up() -> int:
    """Let git show and merge notebooks by cells and commit their source; return 0."""
    if Path(top := _git("rev-parse", "--show-toplevel")).resolve() != root():
        raise UserError(f"This project is a part of the git repository {top}: git is set up only "
                        "where it is a repository of its own (git init).")
    if not _git("check-attr", "filter", "notebooks/name.ipynb").endswith("nbproof"):
        raise UserError(".gitattributes names no filter for notebooks: add the line "
                        f"{ATTRIBUTES[0]}")
    for key, command in SETTINGS.items():
        if (current := _configured(key)) and not any(word in current for word in OURS):
            print(f"git: {key} is {current} already and stays.")
        else:
            _git("config", "--local", key, command)
    print("In this clone git shows and merges notebooks by cells and commits their source only. "
          "nbproof git --remove undoes it.")
    return 0


def unset() -> int:
    """Take away what `set_up` wrote; return 0."""
    for key in SETTINGS:
        if any(word in _configured(key) for word in OURS):
            _git("config", "--local", "--unset", key)
    print("In this clone git treats notebooks as text.")
    return 0


def _configured(key: str) -> str:
    """Return what the clone's configuration has for `key`, empty if nothing."""
    return _git("config", "--local", "--default", "", "--get", key)


def _git(*words: str) -> str:
    """Return what git prints in the project. Raise UserError with git's reason where it fails."""
    done = subprocess.run(["git", *words], cwd=root(), capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"git {' '.join(words)} failed: {' '.join(done.stderr.split())}")
    return done.stdout.strip()
