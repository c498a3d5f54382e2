"""Every result hashed again: DVC itself trusts a file's time and size, and a cache file that is read-only."""

import contextlib
import os
import shutil
import sqlite3
import stat
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc_data.hashfile.hash import file_md5
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import ROOT, Refused


@contextlib.contextmanager
def opened(root: Path) -> Iterator[Repo]:
    """DVC's view of the project at `root`; whatever DVC or the machine refuses becomes one sentence."""
    try:
        with Repo(str(root)) as repo:
            yield repo
    except LockError:
        raise Refused("Another DVC command is at work in this folder: wait for it to end, then run again.") from None
    except DvcException as error:
        raise Refused(f"DVC cannot read the pipeline: {' '.join(str(error).split())}") from None
    except (OSError, sqlite3.Error) as error:
        raise Refused(f"DVC cannot keep its notes ({error}): make room on the disk or look at the folder's rights, then run again.") from None


@dataclass(frozen=True)
class Result:
    """One output recorded in dvc.lock: its file, its copy in the cache (None where it has none), its MD5 sum."""

    path: Path
    cached: Path | None
    md5: str


def results(repo: Repo) -> list[Result]:
    """The outputs that dvc.lock records."""
    outputs = [out for stage in repo.index.stages for out in stage.outs if out.hash_info]
    return [Result(Path(out.fs_path), Path(out.cache_path) if out.use_cache else None, out.hash_info.value) for out in outputs]


def is_right(path: Path, md5: str) -> bool:
    """Whether the bytes at `path` are the recorded ones."""
    from dvc.fs import localfs

    return file_md5(str(path), localfs, name="md5") == md5


def heal_cache(repo: Repo) -> list[str]:
    """Take damaged files out of the cache, and put the workspace's copy in their place where that one is right; says what it did."""
    said = []
    for result in results(repo):
        if not result.cached or not result.cached.exists() or is_right(result.cached, result.md5):
            continue
        name = result.path.relative_to(ROOT).as_posix()
        _remove(result.cached)
        if result.path.exists() and is_right(result.path, result.md5):
            beside = result.cached.with_name(f"{result.cached.name}.{uuid.uuid4().hex}")
            shutil.copyfile(result.path, beside)
            beside.chmod(0o444)
            os.replace(beside, result.cached)
            said.append(f"The cache's copy of {name} was damaged; it was replaced by the file itself, which is whole.")
        else:
            if result.path.exists():  # a link to the damaged copy, or damaged as well
                _remove(result.path)
            said.append(f"The cache's copy of {name} was damaged and is removed; the stage makes it again.")
    return said


def heal_run_cache(repo: Repo, stages: set[str]) -> list[str]:
    """Take damaged results of earlier runs out of the cache, from which DVC would restore `stages`; says what it did."""
    paths = {out.def_path for stage in repo.index.stages if stage.addressing in stages for out in stage.outs}
    said, seen = [], set()
    for entry in sorted(Path(repo.stage_cache.cache_dir).glob("*/*/*")):
        try:
            earlier = YAML(typ="safe").load(entry.read_text(encoding="utf-8"))["outs"]
        except (KeyError, TypeError, UnicodeDecodeError, YAMLError):  # DVC would not get past it either
            entry.unlink()
            said.append("DVC's note of an earlier run was damaged and is removed.")
            continue
        for out in earlier:
            if out["path"] not in paths or out.get("md5", "") in seen:
                continue
            seen.add(out.get("md5", ""))
            cached = Path(repo.cache.local.oid_to_path(out["md5"]))
            if cached.is_file() and not is_right(cached, out["md5"].removesuffix(".dir")):
                _remove(cached)
                said.append(f"The cache's copy of an earlier {out['path']} was damaged and is removed.")
    return said


def _remove(path: Path) -> None:
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    path.unlink()


def verify() -> int:
    """Print every output whose bytes are not those of dvc.lock; 0 if there is none."""
    with opened(ROOT) as repo:
        recorded = results(repo)
        problems = [
            f"{stage.addressing}: dvc.lock does not record its results (make run makes them)"
            for stage in repo.index.stages if not all(out.hash_info for out in stage.outs)
        ]
    for result in recorded:
        name = result.path.relative_to(ROOT).as_posix()
        if not result.path.exists():
            problems.append(f"{name}: missing (dvc checkout, dvc pull or make run brings it back)")
        elif not is_right(result.path, result.md5):
            problems.append(f"{name}: its bytes are not those recorded in dvc.lock (dvc checkout {name}, or make run)")
        if result.cached and result.cached.exists() and not is_right(result.cached, result.md5):
            problems.append(f"{name}: its copy in DVC's cache is damaged (make run replaces it)")
    print("\n".join(problems) or f"All {len(recorded)} results are the ones that dvc.lock records.")
    return 1 if problems else 0
