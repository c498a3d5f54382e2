"""The base of a review, the commit that a branch left, and the files of both sides.

A file of the base comes from git or from DVC's cache.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from dvc.repo import Repo

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline.config import recorded

DEFAULTS = ("origin/HEAD", "origin/main", "origin/master", "main", "master")


def commit(revision: str) -> str:
    """Return the full id of the commit that `revision` names; "" where there is none."""
    wanted = f"{revision}^{{commit}}"
    return tracking.git("rev-parse", "--verify", "--quiet", "--end-of-options", wanted).strip()


def base_of(revision: str | None) -> str:
    """Return the commit where this branch left `revision`; "" where there is none.

    `revision` None is the default branch, "" no base at all. Where the history is too shallow to
    tell, the result is `revision` itself. UserError where git does not know it.
    """
    if revision is None:
        tip = next(filter(None, map(commit, DEFAULTS)), "")
    elif not (tip := commit(revision)) and revision:
        raise UserError(f"git knows no commit {revision!r} to compare with: fetch it (git fetch "
                        "origin), or name another one by --base.")
    fork = tracking.git("merge-base", tip, "HEAD").split() if tip else []
    return fork[0] if fork else tip


def at(revision: str, path: str) -> str | None:
    """Return the text of a file in git, with its own line ends; None where there is none."""
    if not revision:
        return None
    command = ["git", "cat-file", "blob", f"{revision}:./{path}"]
    done = subprocess.run(command, cwd=root(), capture_output=True)
    return None if done.returncode else done.stdout.decode("utf-8", "replace")


def here(path: str | Path) -> str | None:
    """Return the text of a file of the project, with its own line ends; None where it is none."""
    file = root() / path
    return file.read_bytes().decode("utf-8", "replace") if file.is_file() else None


def outs(*stages: dict) -> dict[str, str]:
    """Return the MD5 sums of the outputs of stages by path, from their entries in dvc.lock."""
    return {out["path"]: out.get("md5", "") for stage in stages for out in stage.get("outs", [])}


def recorded_outs(lock: str | None) -> dict[str, str]:
    """Return the MD5 sums of all outputs by path that the text of a dvc.lock records."""
    return outs(*recorded(lock or "").values())


@dataclass(frozen=True)
class Sides:
    """The workspace and the commit `base` ("": none), with the stages that the dvc.lock of each
    records."""

    repo: Repo
    base: str
    lock: dict
    old_lock: dict

    def both(self, path: str) -> tuple[str | None, str | None]:
        """Return the text of an output in the base and here, None where it cannot be had."""
        old = at(self.base, path)
        if old is None and (md5 := outs(*self.old_lock.values()).get(path)):
            old = here(self.repo.cache.local.oid_to_path(md5))
        return old, here(path)
