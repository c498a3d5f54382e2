"""The base of a review, the commit that a branch left, and the files of both sides.

A file of the base comes from git or from DVC's cache.
"""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dvc.repo import Repo

from nbproof.notebook.errors import UserError
from nbproof.pipeline.config import recorded

LARGEST = 20_000_000  # bytes of a file that is still read
DEFAULTS = ("origin/HEAD", "origin/main", "origin/master", "main", "master")


def git(root: Path, *arguments: str) -> bytes | None:
    """Return what git prints; None where it fails."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True)
    return done.stdout if done.returncode == 0 else None


def commit(root: Path, revision: str) -> str | None:
    """Return the full id of the commit that `revision` names, if there is one."""
    wanted = f"{revision}^{{commit}}"
    content = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", wanted)
    return content.decode().strip() if content else None


def base_of(root: Path, revision: str | None) -> str | None:
    """Return the commit where this branch left `revision`; None where there is none.

    `revision` None is the default branch, "" no base at all. Where the history is too shallow to
    tell, the result is `revision` itself. UserError where git does not know it.
    """
    if revision == "":
        return None
    if revision is None:
        tip = next(filter(None, (commit(root, name) for name in DEFAULTS)), None)
    elif not (tip := commit(root, revision)):
        raise UserError(f"git knows no commit {revision!r} to compare with: fetch it (git fetch "
                        "origin), or name another one by --base.")
    fork = git(root, "merge-base", tip, "HEAD") if tip else None
    return fork.decode().split()[0] if fork else tip


def at(root: Path, revision: str, path: str) -> str | None:
    """Return the text of a file in git; None where the revision has none, or it is no text."""
    return _text(git(root, "cat-file", "blob", f"{revision}:./{path}") if revision else None)


def here(root: Path, path: str) -> str | None:
    """Return the text of a file of the workspace, None where it is missing, too large, or no text.

    A link that leads out of the project is not followed.
    """
    file = root / path
    try:
        inside = file.resolve().is_relative_to(root.resolve())
        return _text(file.read_bytes() if inside and file.stat().st_size <= LARGEST else None)
    except OSError:
        return None


def _text(content: bytes | None) -> str | None:
    """Return UTF-8 as text with its own line ends, which belong to an output's bytes."""
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return None


def outs(entry: dict | None) -> dict[str, str | None]:
    """Return the MD5 sums of a stage's outputs by path, from its entry in dvc.lock."""
    return {out["path"]: out.get("md5") for out in (entry or {}).get("outs", [])}


@dataclass(frozen=True)
class Sides:
    """The workspace and the commit `base` ("": none), with the stages that the dvc.lock of each
    records."""

    repo: Repo
    root: Path
    base: str
    lock: dict
    old_lock: dict

    @classmethod
    def of(cls, repo: Repo, root: Path, base: str) -> "Sides":
        texts = here(root, "dvc.lock"), at(root, base, "dvc.lock")
        return cls(repo, root, base, *(recorded(text or "") for text in texts))

    def both(self, stage: str, path: str) -> tuple[str | None, str | None]:
        """Return the text of an output in the base and here, None where it cannot be had: of the
        base from git or DVC's cache, here from a file that may be a link into the cache."""
        texts = at(self.root, self.base, path), here(self.root, path)
        return tuple(self._stored(lock.get(stage), path) if text is None else text
                     for text, lock in zip(texts, (self.old_lock, self.lock)))

    def _stored(self, entry: dict | None, path: str) -> str | None:
        """Return the text that DVC's cache has of an output, if it is whole."""
        md5 = outs(entry).get(path) or ".dir"
        file = Path(self.repo.cache.local.oid_to_path(md5))
        content = file.read_bytes() if not md5.endswith(".dir") and file.exists() else b""
        is_whole = hashlib.md5(content).hexdigest() == md5
        return content.decode("utf-8", "replace") if is_whole else None
