"""Reading another revision: its files from git, its executed notebooks from DVC's cache or remote."""

import functools
import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import Refused


def git(root: Path, *arguments: str) -> bytes | None:
    """What git prints; None where it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        raise Refused("The report needs git, which is not installed.") from None
    return done.stdout if done.returncode == 0 else None


def commit(root: Path, revision: str) -> str | None:
    """The full id of the commit that `revision` names, if there is one."""
    found = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return found.decode().strip() if found else None


def base_of(root: Path, wanted: str | None) -> str | None:
    """The commit to compare with: where this branch left `wanted` (default: origin/main, or else main); None where there is none yet.

    Where the history is too shallow to tell, it is `wanted` itself. A revision that was asked for and is not there is Refused.
    """
    if wanted is None:
        tip = commit(root, "origin/main") or commit(root, "main")
    elif not (tip := commit(root, wanted)):
        raise Refused(f"git knows no commit {wanted!r} to compare with: fetch it (git fetch origin), or name another one by --base.")
    fork = git(root, "merge-base", tip, "HEAD") if tip else None
    return fork.decode().split()[0] if fork else tip


@dataclass(frozen=True)
class Revision:
    """A commit of the repository at `root`."""

    root: Path
    id: str

    def read(self, path: str) -> str | None:
        """The text of a file in git; None where the revision has none, or it is not text."""
        content = git(self.root, "show", f"{self.id}:{path}")
        try:
            return None if content is None else content.decode("utf-8")
        except UnicodeDecodeError:
            return None

    def lock(self) -> dict:
        """The stages that its dvc.lock records, by name; empty where it has none."""
        return stages(self.read("dvc.lock"))


@functools.lru_cache(maxsize=4)  # parsing 40 stages takes a quarter of a second, and HEAD is often the base
def stages(lock: str | None) -> dict:
    """The stages of a dvc.lock's text; empty where there is none to read."""
    try:
        content = YAML(typ="safe").load(lock or "")
    except YAMLError:
        return {}
    found = content.get("stages") if isinstance(content, dict) else None
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)} if isinstance(found, dict) else {}


def md5_of(entry: dict, path: str) -> str | None:
    """The MD5 sum that a stage's entry in dvc.lock records for its output `path`."""
    return next((out.get("md5") for out in entry.get("outs", []) if out.get("path") == path), None)


def stored(repo: Repo, md5: str | None) -> tuple[str | None, str]:
    """The text of the file that DVC keeps under `md5`, fetched from the default remote if there is one; or None and why not."""
    if not md5:
        return None, "its dvc.lock records none"
    path = Path(repo.cache.local.oid_to_path(md5))
    if not path.exists():
        remote = repo.config["core"].get("remote")
        if not remote:
            return None, "it is not in DVC's cache here, and no DVC remote is configured"
        try:
            repo.cloud.pull([HashInfo("md5", md5)])
        except (DvcException, OSError) as error:
            return None, f"it is not in DVC's cache here, and the DVC remote did not give it ({type(error).__name__})"
        if not path.exists():
            return None, "it is neither in DVC's cache here nor on the DVC remote"
    content = path.read_bytes()
    if hashlib.md5(content).hexdigest() != md5:
        return None, "its copy in DVC's cache is damaged"
    return content.decode("utf-8", "replace"), ""
