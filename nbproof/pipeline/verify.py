"""Every result hashed again: DVC itself trusts a file's time and size, and a cache file that is read-only."""

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from dvc.fs import localfs
from dvc.lock import make_lock
from dvc.output import Output
from dvc.repo import Repo
from dvc_data.hashfile.hash import hash_file
from ruamel.yaml.error import YAMLError

from nbproof.notebook.files import from_yaml, root
from nbproof.pipeline.dag import opened


@dataclass(frozen=True)
class Result:
    """A file that dvc.lock records, directly or inside a folder: where it is, its copy in the cache, its MD5 sum."""

    path: Path
    cached: Path | None
    md5: str

    @property
    def name(self) -> str:
        return self.path.relative_to(root()).as_posix()


def recorded(repo: Repo) -> list[Output]:
    """The outputs that dvc.lock records."""
    return [out for stage in repo.index.stages for out in stage.outs if out.hash_info]


def files_of(repo: Repo, out: Output, state=None) -> list[Result] | None:
    """The files of an output; None where it is a folder whose list is not in the cache, or damaged. See is_right."""
    if not out.hash_info.isdir:
        return [Result(Path(out.fs_path), _cached(repo, out, out.hash_info.value), out.hash_info.value)]
    listed = _cached(repo, out, out.hash_info.value)
    if not listed or not listed.exists() or not is_right(listed, out.hash_info.value, state):
        return None
    tree = out.get_obj() or ()
    return [Result(Path(out.fs_path, *key), _cached(repo, out, md5.value), md5.value) for key, _, md5 in tree]


def _cached(repo: Repo, out: Output, md5: str) -> Path | None:
    return Path(repo.cache.local.oid_to_path(md5)) if out.use_cache else None


def is_right(path: Path, md5: str, state=None) -> bool:
    """Whether the bytes of the file at `path` are the recorded ones; the sum of a folder's list ends in .dir.

    With DVC's `state`, a file that has still the size and time at which its sum was noted is not read again.
    """
    found = hash_file(str(path), localfs, "md5", state=state)[1].value
    return found.removesuffix(".dir") == md5.removesuffix(".dir")


def heal_lock() -> None:
    """Remove DVC's list of who reads and writes what, where a kill left a part of it: DVC would not get past that."""
    folder = root() / ".dvc" / "tmp"
    with make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):  # which DVC holds while it writes
        try:
            json.loads((folder / "rwlock").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError:
            (folder / "rwlock").unlink()


def heal_cache(repo: Repo) -> list[str]:
    """Take damaged files out of the cache, and put back what the workspace has whole; says what it did."""
    said = []
    for out in recorded(repo):
        if not out.use_cache:
            continue
        listed = _cached(repo, out, out.hash_info.value)
        files = files_of(repo, out, repo.state)
        if files is None and listed.exists():  # a folder's damaged list
            _remove(listed)
        damaged = [each for each in files or ()
                   if each.cached.exists() and not is_right(each.cached, each.md5, repo.state)]
        for each in damaged:
            _remove(each.cached)
        if damaged or (files is None and not listed.exists() and Path(out.fs_path).is_dir()):
            said += _restored(out, damaged)
    return said


def _restored(out: Output, damaged: list[Result]) -> list[str]:
    """The cache's copy again from the workspace, where that one is right; otherwise the stage has to make it again."""
    name = Path(out.fs_path).relative_to(root()).as_posix()
    for each in damaged:
        if each.path.is_file() and not is_right(each.path, each.md5):  # a link to the damaged copy, or damaged as well
            _remove(each.path)
    if out.exists and not out.changed_checksum():
        out.commit()
        return [f"The cache's copy of {name} was damaged; the file itself is whole and took its place."]
    return [f"The cache's copy of {name} was damaged and is removed; the stage makes it again."]


def heal_run_cache(repo: Repo, names: set[str]) -> list[str]:
    """Take damaged results of earlier runs, from which DVC would restore the stages `names`, out of the cache."""
    named = (stage for stage in repo.index.stages if getattr(stage, "name", None) in names)  # a `dvc add` has no name
    paths = {out.def_path for stage in named for out in stage.outs}
    said, seen = [], set()
    for entry in sorted(Path(repo.stage_cache.cache_dir).glob("*/*/*")):
        try:
            earlier = from_yaml(entry.read_text(encoding="utf-8"))["outs"]
        except (KeyError, TypeError, UnicodeDecodeError, YAMLError):  # DVC would not get past it either
            entry.unlink()
            said.append("DVC's note of an earlier run was damaged and is removed.")
            continue
        for out in earlier:
            md5 = out.get("md5", "")
            if out["path"] not in paths or not md5 or md5 in seen:
                continue
            seen.add(md5)
            if damaged := _damaged(repo, md5):
                said.append(f"The cache's copy of an earlier {out['path']} was damaged and is removed.")
            for each in damaged:
                _remove(each)
    return said


def _damaged(repo: Repo, md5: str) -> list[Path]:
    """What the cache holds of the result `md5`, a file or a folder's list with its files, and is damaged."""
    known, cached = [md5], Path(repo.cache.local.oid_to_path(md5))
    if md5.endswith(".dir") and cached.is_file() and is_right(cached, md5, repo.state):
        known += [each["md5"] for each in json.loads(cached.read_text(encoding="utf-8"))]
    paths = {Path(repo.cache.local.oid_to_path(each)): each for each in known}
    return [path for path, each in paths.items() if path.is_file() and not is_right(path, each, repo.state)]


def _remove(path: Path) -> None:
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    path.unlink()


def verify() -> int:
    """Print every output whose bytes are not those of dvc.lock; 0 if there is none."""
    with opened(root()) as repo:
        problems = [f"{stage.name}: dvc.lock does not record its results (make run makes them)"
                    for stage in repo.index.stages if not all(out.hash_info for out in stage.outs)]
        count = 0
        for out in recorded(repo):
            count += 1
            problems += _problems(repo, out)
    print("\n".join(problems) or f"All {count} results are the ones that dvc.lock records.")
    return 1 if problems else 0


def _problems(repo: Repo, out: Output) -> list[str]:
    name = Path(out.fs_path).relative_to(root()).as_posix()
    missing = f"missing ({'dvc checkout, dvc pull' if out.use_cache else 'git checkout'} or make run brings it back)"
    if not out.exists:
        return [f"{name}: {missing}"]
    files = files_of(repo, out)
    if files is None:
        right = not out.use_cache and not out.changed_checksum()
        return [] if right else [f"{name}: the list of its files in DVC's cache is missing or damaged (make run)"]
    found = []
    for each in files:
        if not each.path.is_file():
            found.append(f"{each.name}: {missing}")
        elif not is_right(each.path, each.md5):
            os.utime(each.path)  # DVC trusts a file's size and time: with another time it looks again
            again = f"dvc checkout --force {name}" if out.use_cache else f"git checkout {name}"
            found.append(f"{each.name}: its bytes are not those that dvc.lock records ({again}, or make run)")
        if each.cached and each.cached.exists() and not is_right(each.cached, each.md5):
            os.utime(each.cached)
            found.append(f"{each.name}: its copy in DVC's cache is damaged (make run replaces it)")
    if Path(out.fs_path).is_dir():
        known = {each.path for each in files}
        strange = [path for path in Path(out.fs_path).rglob("*") if path.is_file() and path not in known]
        names = [path.relative_to(root()).as_posix() for path in strange]
        found += [f"{name}: no result, and lies in the folder of one" for name in names]
    return found
