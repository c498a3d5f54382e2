"""A run's results on their way to who publishes or takes them, checked, and the DVC remote.

They can come from anybody's code. A folder holds dvc.lock, git/ (outputs with `cache: false` in
dvc.yaml) and dvc/ (all others). Each byte is compared with the hash that dvc.lock records.
"""

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from dvc.fs import localfs
from dvc.repo import Repo
from dvc_data.hashfile.build import build
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.transfer import transfer
from ruamel.yaml import YAML, YAMLError

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import dag
from nbproof.review import base
from nbproof.tracking.remotes import data_problem

LARGEST = 1_000_000  # bytes of dvc.lock, and of a file that git keeps
OUTPUT = re.compile(r"(?=.{1,400}\Z)(?:data|models|metrics|reports)"
                    r"(?:/[A-Za-z0-9_@][A-Za-z0-9_.=+@-]{0,99})+")
MD5 = re.compile(r"[0-9a-f]{32}(?:\.dir)?")


class Results(NamedTuple):
    """Checked results: the MD5 sums in dvc.lock by path, where each output and dvc.lock itself
    are, each file for git by its path, and DVC's objects, each with the store that has it."""

    outputs: dict[str, str]
    places: dict[str, Path]
    kept: dict[str, Path]
    objects: list[tuple[HashFileDB, HashInfo]]


def recorded(text: str, where: str) -> dict[str, str]:
    """Return the MD5 sum (.dir: a folder's) of each output in the dvc.lock `text` by its path.

    Raise UserError, which names it as `where`, if it has another form."""
    try:
        if len(text) > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} characters")
        stages = YAML(typ="safe", pure=True).load(text)["stages"].values() if text else []
        outs = [(out["path"], out["md5"]) for stage in stages for out in stage.get("outs", [])]
        for path, md5 in outs:
            if not OUTPUT.fullmatch(path) or not MD5.fullmatch(md5):
                raise ValueError(f"{path!r} is no path below data/, models/, metrics/ or reports/ "
                                 "of letters, digits and _.=+@-, or has no MD5 sum")
    except (YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where} cannot be used as dvc.lock: {reason}.") from None
    return dict(outs)


def here() -> dict[str, str]:
    """Return what dvc.lock records now."""
    return recorded(base.here(root(), "dvc.lock") or "", "dvc.lock")


def at(commit: str) -> dict[str, str]:
    """Return what dvc.lock of a commit records; nothing where there is no such commit."""
    return recorded(base.at(root(), commit, "dvc.lock") or "", f"dvc.lock of {commit[:12]}")


def lay_out(folder: Path) -> None:
    """Copy the project's results into `folder`. Raise UserError if they cannot be published."""
    with dag.opened(root()) as repo:
        kept = {out.def_path for stage in repo.index.stages for out in stage.outs
                if not out.use_cache}
    for path in here():
        _copy(root() / path, folder / ("git" if path in kept else "dvc") / path)
    _copy(root() / "dvc.lock", folder / "dvc.lock")
    checked(folder)


def take(folder: Path) -> None:
    """Make the results in `folder` those of this checkout: dvc.lock, files, DVC's cache."""
    results = checked(folder)
    for path in results.places:  # a branch may have committed metrics/x.json -> ../.git/config
        for parent in (root() / path, *(root() / path).parents):
            if parent.is_symlink() and parent.is_relative_to(root()):
                raise UserError(f"{parent.relative_to(root())} is a symbolic link, through which "
                                "the results would be written: remove it, then run this again.")
    with dag.opened(root()) as repo:
        for store, info in results.objects:
            transfer(store, repo.cache.local, {info}, shallow=False)
    for path, source in results.places.items():
        if (root() / path).is_dir():
            shutil.rmtree(root() / path)
        (root() / path).unlink(missing_ok=True)
        _copy(source, root() / path)


def _copy(path: Path, target: Path) -> None:
    """Copy a file or a folder, if it is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, target)
    elif path.exists():
        with path.open("rb") as source, target.open("xb") as file:  # x: follows no link
            shutil.copyfileobj(source, file)


def checked(folder: Path) -> Results:
    """Return the results in `folder`; raise UserError unless all that dvc.lock records is there,
    nothing else is, and every byte is right."""
    text = base.here(folder, "dvc.lock")
    if text is None:
        raise UserError("The run's results hold no dvc.lock.")
    outputs = recorded(text, "dvc.lock of the run's results")
    kept = _kept(folder, outputs)
    places, objects = {"dvc.lock": folder / "dvc.lock"}, []
    for path, md5 in outputs.items():
        halves = [half for half in ("git", "dvc") if (folder / half / path).exists()]
        if len(halves) != 1:
            raise UserError(f"{path} is recorded in dvc.lock and {'twice' if halves else 'not'} "
                            "among the run's results.")
        places[path] = folder / halves[0] / path
        # a new store knows nothing of the files, so each byte is read
        store, _, built = build(HashFileDB(localfs, str(places[path])), str(places[path]),
                                localfs, "md5")
        if built.hash_info.value != md5:
            raise UserError(f"{path} does not have the bytes that dvc.lock records.")
        objects += [(store, built.hash_info)] if halves == ["dvc"] else []
    return Results(outputs, places, kept, objects)


def below(path: str, outputs: Mapping[str, str]) -> bool:
    """Return whether `path` is one of the outputs, or a file in one that is a folder."""
    return any(str(parent) in outputs for parent in (path, *Path(path).parents))


def _kept(folder: Path, outputs: Mapping[str, str]) -> dict[str, Path]:
    """Return the files for git below `folder` by their paths. Raise UserError where anything there
    is no regular file of an output, or too large for git."""
    kept = {}
    for path in folder.rglob("*"):
        name, status = path.relative_to(folder).as_posix(), path.lstat()
        half, _, output = name.partition("/")
        is_output = half in ("git", "dvc") and OUTPUT.fullmatch(output) and below(output, outputs)
        if stat.S_ISDIR(status.st_mode):
            continue
        if not (is_output or name == "dvc.lock") or not stat.S_ISREG(status.st_mode):
            raise UserError(f"{name!r} among the run's results is no regular file of an output "
                            "that dvc.lock records.")
        if half != "dvc":
            kept[output or name] = path
            if status.st_size > LARGEST:
                raise UserError(f"{name} is too large for git: it has {status.st_size:,} bytes.")
    return kept


@contextlib.contextmanager
def _remote() -> Iterator[Repo | None]:
    """Open the project with its DVC remote, and REMOTE_USER and REMOTE_PASSWORD as credentials;
    None where no remote is configured."""
    with dag.opened(root()) as repo:
        if not (name := repo.config["core"].get("remote")):
            yield None
            return
        settings = repo.config["remote"][name]
        account = [os.environ.get(f"REMOTE_{word}", "") for word in ("USER", "PASSWORD")]
        if any(account) and settings["url"].startswith("s3"):
            settings |= dict(zip(("access_key_id", "secret_access_key"), account))
        elif any(account):
            settings |= {"auth": "basic"} | dict(zip(("user", "password"), account))
        # DVC itself takes a refusal for files that do not exist
        secrets = "the secrets for it, which runs of a fork or of Dependabot do not have"
        if problem := data_problem(repo, secrets):
            raise UserError(f"The DVC remote {problem}")
        try:
            yield repo
        except Exception as error:  # each kind of remote raises its own
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"The DVC remote failed ({type(error).__name__}: {reason}).") from None


def pull(before: Mapping[str, str]) -> str:
    """Fetch this commit's outputs, and the base's notebooks and predictions; return how many."""
    with _remote() as repo:
        if repo is None:
            return "No DVC remote is configured."
        repo.cloud.pull([HashInfo("md5", md5) for path, md5 in before.items()
                         if path.endswith((".ipynb", ".csv"))])
        count = repo.pull(allow_missing=True, force=True)["stats"]["fetched"]
    return f"From the DVC remote: {count} files fetched."


def push(objects: list[tuple[HashFileDB, HashInfo]]) -> str:
    """Push DVC's objects to the remote, if one is configured; return how many were new to it."""
    with _remote() as repo:
        if repo is None:
            return "No DVC remote is configured."
        target = repo.cloud.get_remote_odb()
        for store, info in objects:  # an HTTP remote cannot take a folder's list from memory
            transfer(store, repo.cache.local, {info}, shallow=False)
        done = [transfer(repo.cache.local, target, {info}, shallow=False) for _, info in objects]
    if failed := sum(len(result.failed) for result in done):
        raise UserError(f"The DVC remote did not take {failed} files.")
    return f"{sum(len(result.transferred) for result in done)} files were new to the DVC remote."
