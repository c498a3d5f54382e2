"""The two sides that a report compares: files of the workspace, and of the base from git, DVC's cache or its remote."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from ruamel.yaml.error import YAMLError

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import from_yaml

LARGEST = 20_000_000  # bytes of a file that is still read
MADE = "scratch/main"  # what main's run made: dvc.lock and the outputs that git keeps; the rest is in DVC's cache
PULLED = "scratch/pull/why"  # what a workflow's pull step said: it has brought all that the remote gives


def git(root: Path, *arguments: str) -> bytes | None:
    """What git prints; None where it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        raise UserError("The report needs git, which is not installed.") from None
    return done.stdout if done.returncode == 0 else None


def commit(root: Path, revision: str) -> str | None:
    """The full id of the commit that `revision` names, if there is one."""
    found = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return found.decode().strip() if found else None


def base_of(root: Path, wanted: str | None) -> str | None:
    """The commit to compare with: where this branch left `wanted` (None: origin/main, or else main; empty: none).

    Where the history is too shallow to tell, it is `wanted` itself. UserError where there is no such revision.
    """
    if wanted == "":
        return None
    if wanted is None:
        tip = commit(root, "origin/main") or commit(root, "main")
    elif not (tip := commit(root, wanted)):
        raise UserError(f"git knows no commit {wanted!r} to compare with: fetch it (git fetch origin), "
                      "or name another one by --base.")
    fork = git(root, "merge-base", tip, "HEAD") if tip else None
    return fork.decode().split()[0] if fork else tip


def at(root: Path, revision: str, path: str) -> str | None:
    """The text of a file in git; None where the revision has none, or it is no text."""
    content = git(root, "cat-file", "blob", f"{revision}:./{path}") if revision else None
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return None


def here(root: Path, path: str) -> str | None:
    """A text file of the workspace; None where it is missing, too large, no text, or a link that leads out of it."""
    file = root / path
    try:
        if not file.resolve().is_relative_to(root.resolve()) or file.stat().st_size > LARGEST:
            return None
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def recorded(lock: str | None) -> dict:
    """The stages of a dvc.lock's text by name; empty where there is none to read."""
    try:
        content = from_yaml(lock or "")
    except YAMLError:
        return {}
    found = content.get("stages") if isinstance(content, dict) else None
    return {name: entry for name, entry in (found or {}).items() if isinstance(entry, dict)}


def alike(name: str, here: dict, there: dict) -> bool:
    """Whether a stage has the same command, parameters and inputs in two locks.

    What a stage made that is itself alike is the same input, whatever its bytes: they are those of two machines.
    """
    one, other = here.get(name), there.get(name)
    if not one or not other or any(one.get(key) != other.get(key) for key in ("cmd", "params")):
        return False
    deps = [{dep["path"]: dep.get("md5") for dep in each.get("deps", [])} for each in (one, other)]
    return deps[0].keys() == deps[1].keys() and all(
        deps[0][path] == deps[1][path] or _same_makers(path, here, there) for path in deps[0])


def _same_makers(path: str, here: dict, there: dict) -> bool:
    makers, others = ({name for name, entry in lock.items() for out in entry.get("outs", [])
                       if f"{path}/".startswith(f"{out['path']}/") or out["path"].startswith(f"{path}/")}
                      for lock in (here, there))
    return bool(makers) and makers == others and all(alike(name, here, there) for name in makers)


@dataclass(frozen=True)
class Sides:
    """The workspace and the commit `base` (empty: none), with the stages that the dvc.lock of each records.

    `made` is a folder with what main's own run made of the same inputs, on a machine such as this one: where it has a
    stage of the base, its numbers are compared, not the committed ones. `offline`: nothing is asked of a DVC remote.
    """

    repo: Repo
    root: Path
    base: str
    lock: dict
    old_lock: dict
    made: Path
    offline: bool

    @classmethod
    def of(cls, repo: Repo, root: Path, base: str) -> "Sides":
        made = root / MADE
        lock, old, new = (recorded(text) for text in (here(root, "dvc.lock"), at(root, base, "dvc.lock"),
                                                      here(made, "dvc.lock")))
        old = {name: new[name] if alike(name, new, old) else entry for name, entry in old.items()}
        return cls(repo, root, base, lock, old, made, (root / PULLED).exists())

    def now(self, stage: str, path: str) -> str | None:
        """The text of an output here; from DVC's cache where the file is a link into one that lies elsewhere."""
        found = here(self.root, path)
        return self._stored(self.lock.get(stage, {}), path)[0] if found is None else found

    def then(self, stage: str, path: str) -> tuple[str | None, str]:
        """The text of an output in the base; or None and why not."""
        entry = self.old_lock.get(stage, {})
        md5 = next((out.get("md5") for out in entry.get("outs", []) if out.get("path") == path), None)
        for found in (here(self.made, path), at(self.root, self.base, path)):
            if found is not None and md5 in (None, hashlib.md5(found.encode()).hexdigest()):
                return found, ""
        return self._stored(entry, path)

    def _stored(self, entry: dict, path: str) -> tuple[str | None, str]:
        """The text that DVC keeps of an output, fetched from the default remote if there is one; or None and why."""
        md5 = next((out.get("md5") for out in entry.get("outs", []) if out.get("path") == path), None)
        if not md5 or md5.endswith(".dir"):
            return None, "it is a folder" if md5 else "its dvc.lock records none"
        file = Path(self.repo.cache.local.oid_to_path(md5))
        if not file.exists():
            if self.offline or not self.repo.config["core"].get("remote"):
                why = "" if self.offline else ", and no DVC remote is configured"
                return None, f"it is not in DVC's cache here{why}"
            try:
                self.repo.cloud.pull([HashInfo("md5", md5)])
            except Exception as error:  # each kind of remote raises what its own library raises
                kind = type(error).__name__
                return None, f"it is not in DVC's cache here, and the DVC remote did not give it ({kind})"
        if not file.exists():
            return None, "it is neither in DVC's cache here nor on the DVC remote"
        content = file.read_bytes()
        if hashlib.md5(content).hexdigest() != md5:
            return None, "its copy in DVC's cache is damaged"
        return content.decode("utf-8", "replace"), ""
