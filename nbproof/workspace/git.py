"""Notebooks in git: commits of source only, diffs and merges by cells. Only where it was asked for, in this clone only.

.gitattributes names a filter of ours and two drivers of nbdime. Git finds them in the configuration of the clone, which
`set_up` writes and `unset` takes away. Without it, notebooks are text. The filter writes what a run would leave of a
notebook; nbstripout's would not, and takes a second for each.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root

PYTHON = f'"{Path(sys.executable).as_posix()}" -m'
SETTINGS = {
    "filter.nbproof.clean": f"{PYTHON} nbproof.runner.source",
    "diff.jupyternotebook.command": f"{PYTHON} nbdime.vcs.git.diffdriver diff",
    "merge.jupyternotebook.driver": f"{PYTHON} nbdime.vcs.git.mergedriver merge %O %A %B %L %P",
}


def set_up() -> int:
    """Let git show and merge notebooks by cells and commit their source only; settings of the user's own stay."""
    if not (above := _git("rev-parse", "--show-toplevel")) or Path(above).resolve() != root():
        where = f"a part of the git repository {above}" if above else "in no git repository"
        raise UserError(f"This project is {where}, so git was not set up: it must be a repository of its own (git init).")
    if not _git("check-attr", "filter", "notebooks/name.ipynb").endswith("nbproof"):
        raise UserError(".gitattributes names no filter for notebooks, so git was not set up: add the line "
                      "*.ipynb filter=nbproof diff=jupyternotebook merge=jupyternotebook")
    for key, value in SETTINGS.items():
        if (known := _git("config", "--local", key)) and not _is_ours(known):
            print(f"git: {key} is {known} already and stays.")
        else:
            _git("config", "--local", key, value)
    print("git shows and merges notebooks by cells and commits their source only, in this clone. "
          "nbproof git --remove undoes it.")
    return 0


def unset() -> int:
    """Take away what `set_up` did."""
    for key in SETTINGS:
        if _is_ours(_git("config", "--local", key)):
            _git("config", "--local", "--unset", key)
    print("git treats notebooks as text, in this clone.")
    return 0


def refresh(notebook: Path) -> None:
    """Let git see that a notebook, stripped on the disk, is what it holds already: it looks at the size only."""
    name = notebook.relative_to(root()).as_posix()
    if (held := _git("rev-parse", "--verify", f":./{name}")) and held == _git("hash-object", name):
        _git("add", name)


def restore(files: set[Path]) -> None:
    """Bring back those of the project's `files` that only git has: DVC would write other ones in their place."""
    for file in files:
        if not (root() / file).exists():
            _git("checkout", "--", file.as_posix())


def at(revision: str, path: str) -> bytes | None:
    """The content of a file of the project in git; None where it is not there, or git is not installed."""
    if not shutil.which("git"):
        return None
    asked = subprocess.run(["git", "show", f"{revision}:./{path}"], cwd=root(), capture_output=True)
    return asked.stdout if asked.returncode == 0 else None


def _is_ours(value: str) -> bool:
    return any(f"-m {program}" in value for program in ("nbproof.runner.source", "nbdime.vcs.git"))


def _git(*words: str) -> str:
    """What git says in the project, empty if it refuses or is not installed."""
    if not shutil.which("git"):
        return ""
    return subprocess.run(["git", *words], cwd=root(), capture_output=True, text=True).stdout.strip()
