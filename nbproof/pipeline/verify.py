"""Every result and every copy of one in DVC's cache, hashed again: DVC trusts size and time."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dvc.output import Output
from dvc.repo import Repo
from ruamel.yaml.error import YAMLError

from nbproof.notebook.files import from_yaml, root
from nbproof.pipeline.dag import opened


def verify(fix: bool = False) -> int:
    """Print what is damaged or missing, with `fix` after repairing it; return 1 if there is any."""
    with opened(root()) as repo:
        stages = repo.index.stages
        outs = [out for stage in stages for out in stage.outs if out.hash_info]
        if fix:
            _repair(repo, outs)
        problems = [f"{_name(path)}: DVC's file is damaged" for path in _damaged(repo)]
        problems += [problem for out in outs for problem in _problems(out)]
        problems += [f"{stage.addressing}: dvc.lock does not record its results"
                     for stage in stages if not all(out.hash_info for out in stage.outs)]
    print("\n".join(problems) or f"All {len(outs)} results are the ones that dvc.lock records.")
    if problems:
        print("nbproof run brings these back." if fix else
              "nbproof verify --fix mends DVC's cache, and nbproof run then brings these back.")
    return 1 if problems else 0


def _name(path: Path) -> str:
    return path.relative_to(root()).as_posix() if path.is_relative_to(root()) else str(path)


def _is_right(path: Path, md5: str) -> bool:
    """Return whether `path` is a file with this MD5 sum; that of a folder's list ends in .dir."""
    if not path.is_file():
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "md5").hexdigest() == md5.removesuffix(".dir")


def _damaged(repo: Repo) -> Iterator[Path]:
    """Yield the damaged ones of DVC's own files: its cache, its run-cache, its list of locks."""
    for path in sorted(Path(repo.cache.local.path).glob("??/*")):
        md5 = path.parent.name + path.name
        if re.fullmatch(r"[0-9a-f]{32}(\.dir)?", md5) and not _is_right(path, md5):
            yield path
    runs = Path(repo.stage_cache.cache_dir).glob("*/*/*")
    for path in [*Path(repo.tmp_dir).glob("rwlock"), *runs]:
        try:
            if not isinstance(from_yaml(path.read_text("utf-8")), dict):
                yield path
        except (UnicodeDecodeError, YAMLError):
            yield path


def _md5s(out: Output) -> dict[Path, str] | None:
    """Return the MD5 sum of each file of an output; None where the cache lacks a folder's list."""
    path, md5 = Path(out.fs_path), out.hash_info.value
    if not out.hash_info.isdir:
        return {path: md5}
    listed = Path(out.cache.path, md5[:2], md5[2:])
    if not _is_right(listed, md5):
        return None
    return {path / file["relpath"]: file["md5"] for file in json.loads(listed.read_text("utf-8"))}


def _problems(out: Output) -> Iterator[str]:
    """Yield a sentence for each file of an output that is missing, wrong or unexpected."""
    path, md5s = Path(out.fs_path), _md5s(out)
    if not path.exists():
        yield f"{_name(path)}: missing"
    elif md5s is None:
        if out.use_cache or out.changed_checksum():
            yield f"{_name(path)}: DVC's cache has no whole list of its files"
    else:
        for file in sorted({*md5s, *filter(Path.is_file, path.rglob("*"))}):
            if file not in md5s:
                yield f"{_name(file)}: no result, and lies in the folder of one"
            elif not file.is_file():
                yield f"{_name(file)}: missing"
            elif not _is_right(file, md5s[file]):
                yield f"{_name(file)}: its bytes are not those that dvc.lock records"


def _repair(repo: Repo, outs: list[Output]) -> None:
    """Remove what is damaged of DVC's files, and copy results that are whole into its cache again.

    A result that is not what dvc.lock records stays, and DVC sees it: nbproof run replaces it.
    """
    for path in [*_damaged(repo)]:
        path.chmod(0o644)  # Windows removes no file that is read-only
        path.unlink()
        print(f"{_name(path)}: DVC's file was damaged and is removed")
    for out in outs:
        path = Path(out.fs_path)
        for file in filter(Path.is_file, [path, *path.rglob("*")]):
            os.utime(file)  # DVC hashes a file again only where its size or time has changed
        if out.use_cache and out.exists and not out.changed_checksum():
            out.commit()
