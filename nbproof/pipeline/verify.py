"""Every result and every copy of one in DVC's cache, hashed again: DVC trusts size and time."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dvc.fs import localfs
from dvc.output import Output
from dvc.repo import Repo
from dvc.utils import relpath
from dvc_data.hashfile.build import build
from dvc_data.hashfile.db import HashFileDB

from nbproof.notebook.errors import typed
from nbproof.notebook.files import root
from nbproof.pipeline.dag import opened


def verify(fix: bool = False) -> int:
    """Print what is damaged or missing, with `fix` after repairing it; return 1 if there is any."""
    with opened(root()) as repo:
        stages = repo.index.stages
        outs = [out for stage in stages for out in stage.outs if out.hash_info]
        if not any(out.exists for stage in stages for out in stage.outs):
            print(typed("There are no results here yet: nbproof run makes them, or nbproof pull "
                        "brings them."))
            return 1
        if fix:
            _repair(repo, outs)
        problems = [f"{relpath(path, root())}: DVC's file is damaged" for path in _damaged(repo)]
        is_cache_damaged = bool(problems)
        problems += filter(None, map(_problem, outs))
        problems += [f"{stage.addressing}: dvc.lock does not record its results"
                     for stage in stages if not all(out.hash_info for out in stage.outs)]
    print("\n".join(problems) or f"All {len(outs)} results are the ones that dvc.lock records.")
    if problems:
        repair = "nbproof verify --fix repairs the cache, then " if is_cache_damaged else ""
        print(typed(f"{repair}nbproof run brings these back."))
    return 1 if problems else 0


def _is_right(path: Path, md5: str) -> bool:
    """Return whether a file has this MD5 sum; that of a folder's list ends in .dir."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "md5").hexdigest() == md5.removesuffix(".dir")


def _damaged(repo: Repo) -> Iterator[Path]:
    """Yield the damaged files of DVC's cache; their names are their MD5 sums."""
    for path in sorted(Path(repo.cache.local.path).glob("??/*")):
        md5 = path.parent.name + path.name
        if re.fullmatch(r"[0-9a-f]{32}(\.dir)?", md5) and not _is_right(path, md5):
            yield path


def _problem(out: Output) -> str:
    """Return a sentence where an output is missing or has other bytes; empty where all is well."""
    path = Path(out.fs_path)
    if not path.exists():
        return f"{relpath(path, root())}: missing"
    # This store knows no times of files, so that each byte is read.
    _, _, built = build(HashFileDB(localfs, str(path)), str(path), localfs, "md5",
                        ignore=out.repo.dvcignore)
    is_right = built.hash_info.value == out.hash_info.value
    return "" if is_right else f"{relpath(path, root())}: not what dvc.lock records"


def _repair(repo: Repo, outs: list[Output]) -> None:
    """Remove the damaged files of DVC's cache, and copy results that are whole into it again.

    A result that is not what dvc.lock records stays, and DVC sees it: nbproof run replaces it.
    """
    for path in _damaged(repo):
        path.chmod(0o644)  # Windows removes no file that is read-only
        path.unlink()
        print(f"{relpath(path, root())}: DVC's file was damaged and is removed")
    for out in outs:
        path = Path(out.fs_path)
        for file in filter(Path.is_file, [path, *path.rglob("*")]):
            os.utime(file)  # DVC hashes a file again only where its size or time has changed
        if out.use_cache and out.exists and not out.changed_checksum():
            out.commit()
