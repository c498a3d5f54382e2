"""Every result hashed again: DVC itself trusts a file's time and size, and a cache file that is read-only."""

import os
import shutil
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path

from dvc.repo import Repo
from dvc_data.hashfile.hash import file_md5

from pipeline import ROOT


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


def _remove(path: Path) -> None:
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    path.unlink()


def verify() -> int:
    """Print every output whose bytes are not those of dvc.lock; 0 if there is none."""
    with Repo(str(ROOT)) as repo:
        recorded = results(repo)
    problems = []
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
