"""Every result and every copy of one in DVC's cache, hashed again: DVC trusts size and time."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dvc.output import Output
from dvc.repo import Repo
from dvc.utils import relpath

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
        problems += [problem for out in outs for problem in _problems(out)]
        problems += [f"{stage.addressing}: dvc.lock does not record its results"
                     for stage in stages if not all(out.hash_info for out in stage.outs)]
    print("\n".join(problems) or f"All {len(outs)} results are the ones that dvc.lock records.")
    if problems:
        print(typed("nbproof run brings these back." if fix else
                    "nbproof verify --fix repairs the cache, then nbproof run brings these back."))
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


def _problems(out: Output) -> Iterator[str]:
    """Yield a sentence for each file of an output that is missing, wrong or unexpected."""
    path, recorded = Path(out.fs_path), out.get_obj()  # None where the cache lacks a folder's list
    if not path.exists():
        yield f"{relpath(path, root())}: missing"
    elif recorded is None:
        if out.use_cache or out.changed_checksum():
            yield f"{relpath(path, root())}: DVC's cache has no whole list of its files"
    else:
        md5s = {path: out.hash_info.value}
        if out.hash_info.isdir:
            md5s = {path.joinpath(*key): md5.value for key, _, md5 in recorded}
        for file in sorted({*md5s, *filter(Path.is_file, path.rglob("*"))}):
            if file not in md5s:
                yield f"{relpath(file, root())}: no result, and lies in the folder of one"
            elif not file.is_file():
                yield f"{relpath(file, root())}: missing"
            elif not _is_right(file, md5s[file]):
                yield f"{relpath(file, root())}: its bytes are not those that dvc.lock records"


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
