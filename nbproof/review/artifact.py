"""A run's results on their way to who publishes or takes them, checked, and the DVC remote.

They can come from anybody's code. A folder holds dvc.lock, git/ (outputs with `cache: false` in
dvc.yaml) and dvc/ (all others). Each byte is compared with the hash that dvc.lock records.
"""

import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dvc.fs import localfs
from dvc.repo import Repo
from dvc_data.hashfile.build import build
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.transfer import transfer

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import from_yaml, root
from nbproof.pipeline import dag
from nbproof.review import base
from nbproof.tracking.remotes import data_problem

LARGEST = 1_000_000  # bytes of dvc.lock, and of a file that git keeps
OUTPUT = re.compile(r"(?=.{1,400}\Z)(?:data|models|metrics|reports)"
                    r"(?:/[A-Za-z0-9_@][A-Za-z0-9_.=+@-]{0,99})+")
NO_REMOTE = "No DVC remote is configured."


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
        stages = from_yaml(text)["stages"].values() if text else []
        outs = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}
        wrong = [path for path in outs if not OUTPUT.fullmatch(path)]
    except Exception as error:  # its readers raise of every kind for what anybody can write
        raise UserError(f"{where} is not one: {' '.join(str(error).split())[:200]}.") from None
    if wrong:
        raise UserError(f"{where} has outputs whose paths are not below data/, models/, metrics/ "
                        f"or reports/, and of letters, digits and _.=+@-: {wrong[:5]}.")
    return outs


def lay_out(folder: Path) -> None:
    """Copy the project's results into `folder`. Raise UserError if they cannot be published."""
    with dag.opened(root()) as repo:
        kept = {out.def_path for stage in repo.index.stages for out in stage.outs
                if not out.use_cache}
        for path in base.recorded_outs(base.here("dvc.lock")):
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
        _into_cache(repo, results.objects)
        for path, source in results.places.items():
            if (root() / path).is_dir():
                shutil.rmtree(root() / path)
            (root() / path).unlink(missing_ok=True)
            _copy(source, root() / path)


def _copy(path: Path, target: Path) -> None:
    """Copy a file or a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if path.is_dir() else shutil.copyfile)(path, target)


def _into_cache(repo: Repo, objects: list[tuple[HashFileDB, HashInfo]]) -> None:
    """Add the objects to DVC's cache."""
    for store, info in objects:
        transfer(store, repo.cache.local, {info}, shallow=False)


def checked(folder: Path) -> Results:
    """Return the results in `folder`; raise UserError unless all that dvc.lock records is there,
    and every byte is right. What else is there has no part in them."""
    files = _files(folder)
    if "dvc.lock" not in files:
        raise UserError("The run's results hold no dvc.lock.")
    text = files["dvc.lock"].read_text(encoding="utf-8", errors="replace")
    outputs = recorded(text, "dvc.lock of the run's results")
    kept, objects = {"dvc.lock": files["dvc.lock"]}, []
    places = dict(kept)
    for path, md5 in outputs.items():
        half = "git" if (folder / "git" / path).exists() else "dvc"
        places[path] = place = folder / half / path
        if not place.exists():
            raise UserError(f"{path} is recorded in dvc.lock and not among the run's results.")
        # a new store knows nothing of the files, so each byte is read
        store, _, built = build(HashFileDB(localfs, str(place)), str(place), localfs, "md5")
        if built.hash_info.value != md5:
            raise UserError(f"{path} does not have the bytes that dvc.lock records.")
        if half == "dvc":
            objects.append((store, built.hash_info))
        else:
            kept |= {name.removeprefix("git/"): file for name, file in files.items()
                     if f"{name}/".startswith(f"git/{path}/")}
    return Results(outputs, places, kept, objects)


def _files(folder: Path) -> dict[str, Path]:
    """Return the files below `folder` by their paths. Raise UserError where one is a link, has a
    path that no output has, or is too large for git."""
    paths = [path for path in folder.rglob("*") if not stat.S_ISDIR(path.lstat().st_mode)]
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    for name, path in files.items():
        is_output = name == "dvc.lock" or OUTPUT.fullmatch(name.partition("/")[2])
        if not is_output or not stat.S_ISREG(path.lstat().st_mode):
            raise UserError(f"{name!r} among the run's results is no regular file of an output.")
        if not name.startswith("dvc/") and path.stat().st_size > LARGEST:
            raise UserError(f"{name} is too large for git: it has {path.stat().st_size:,} bytes.")
    return files


def _log_in(repo: Repo) -> bool:
    """Give the DVC remote REMOTE_USER and REMOTE_PASSWORD as its account; return whether the
    project has one. Raise UserError where it does not respond."""
    if not (name := repo.config["core"].get("remote")):
        return False
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
    return True


def pull(before: Mapping[str, str]) -> str:
    """Fetch this commit's outputs, and the base's notebooks and predictions; return how many."""
    with dag.opened(root()) as repo:
        if not _log_in(repo):
            return NO_REMOTE
        repo.cloud.pull([HashInfo("md5", md5) for path, md5 in before.items()
                         if path.endswith((".ipynb", ".csv"))])
        count = repo.pull(allow_missing=True, force=True)["stats"]["fetched"]
    return f"From the DVC remote: {count} files fetched."


def push(objects: list[tuple[HashFileDB, HashInfo]]) -> str:
    """Push DVC's objects to the remote, if one is configured; return how many were new to it."""
    with dag.opened(root()) as repo:
        if not _log_in(repo):
            return NO_REMOTE
        target = repo.cloud.get_remote_odb()
        _into_cache(repo, objects)  # an HTTP remote cannot take a folder's list from memory
        done = [transfer(repo.cache.local, target, {info}, shallow=False) for _, info in objects]
    if failed := sum(len(result.failed) for result in done):
        raise UserError(f"The DVC remote did not take {failed} files.")
    return f"{sum(len(result.transferred) for result in done)} files were new to the DVC remote."
