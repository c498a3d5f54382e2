"""A run's results: what dvc.lock records, their way to the job that publishes them, and the DVC remote.

All of it can come from anywhere, so it is checked before it is used. On the way, a folder holds dvc.lock, git/ (outputs
with `cache: false` in dvc.yaml) and dvc/ (all others).
"""

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

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

MOST_LOCK, MOST_KEPT, MOST_ALL = 2_000_000, 1_000_000, 8_000_000_000  # bytes: dvc.lock, a file for git, all together
PLACE = re.compile(r"(?=.{1,400}\Z)(?:data|models|metrics|reports)(?:/[A-Za-z0-9_][A-Za-z0-9_.=+-]{0,99})+")
MD5 = re.compile(r"[0-9a-f]{32}(?:\.dir)?")


def recorded(text: str | None, where: str) -> dict[str, str]:
    """The MD5 sum (.dir: a folder's) of each output in the dvc.lock `text`; UserError where it has another form."""
    try:
        if len(text or "") > MOST_LOCK:
            raise ValueError(f"it has more than {MOST_LOCK} characters")
        entries = YAML(typ="safe", pure=True).load(text)["stages"].values() if text is not None else []
        listed = [(out["path"], out["md5"]) for stage in entries for out in stage.get("outs", [])]
        for path, md5 in listed:
            if not PLACE.fullmatch(path) or not MD5.fullmatch(md5):
                raise ValueError(f"{path!r} is no place below data/, models/, metrics/ or reports/, or has no MD5 sum")
        if len(dict(listed)) != len(listed):
            raise ValueError("an output is recorded twice")
    except (YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{where} cannot be used as dvc.lock: {' '.join(str(error).split())[:200]}.") from None
    return dict(listed)


def here() -> dict[str, str]:
    """What the workspace's dvc.lock records."""
    return recorded(base.here(root(), "dvc.lock"), "dvc.lock")


def at(commit: str) -> dict[str, str]:
    """What dvc.lock of a commit records; nothing where there is no such commit, as before a first push."""
    return recorded(base.at(root(), commit, "dvc.lock"), f"dvc.lock of {commit[:12]}")


def lay_out(folder: Path) -> None:
    """Copy the project's results into `folder`; UserError where they could not be published."""
    kept = _kept()
    for path in here():
        _copy(root() / path, folder / ("git" if path in kept else "dvc") / path)
    _copy(root() / "dvc.lock", folder / "dvc.lock")
    taken(folder)


def keep(folder: Path) -> None:
    """Copy dvc.lock and the outputs that git keeps into `folder`; DVC's cache has the others."""
    for path in {*_kept()} & {*here()} | {"dvc.lock"}:
        _copy(root() / path, folder / path)


def bring(folder: Path) -> None:
    """Make the results in `folder` those of this project: dvc.lock, DVC's cache, the files themselves."""
    _, _, kept, objects = taken(folder)
    with dag.opened(root()) as repo:
        for store, found in objects:
            transfer(store, repo.cache.local, {found}, shallow=False)
        for path, file in kept.items():
            _copy(file, root() / path)
        _copy(folder / "dvc.lock", root() / "dvc.lock")
    with dag.opened(root()) as repo:
        repo.checkout(force=True)


def _kept() -> set[str]:
    """The outputs that git keeps, `cache: false` in dvc.yaml."""
    with dag.opened(root()) as repo:
        return {out.def_path for stage in repo.index.stages for out in stage.outs if not out.use_cache}


def _copy(path: Path, target: Path) -> None:
    """Copy a file or a folder, if it is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, target, dirs_exist_ok=True)
    elif path.exists():
        shutil.copyfile(path, target)


def taken(folder: Path) -> tuple[bytes, dict[str, str], dict[str, Path], list[tuple]]:
    """dvc.lock, what it records, the files for git by place, and DVC's objects (store, hash) for the remote.

    UserError unless all that dvc.lock records is in `folder`, nothing else is, and every byte is right.
    """
    files = _files(folder)
    if "dvc.lock" not in files:
        raise UserError("The run's results hold no dvc.lock.")
    lock, objects = files.pop("dvc.lock").read_bytes(), []
    outputs = recorded(lock.decode("utf-8", errors="replace"), "dvc.lock of the run's results")
    if strange := [name for name in files if not below(name[4:], outputs)]:
        raise UserError(f"{strange[0]} is among the run's results and not recorded in dvc.lock: nothing is published.")
    for path, md5 in outputs.items():
        homes = [home for home in ("git", "dvc") if (folder / home / path).exists()]
        if len(homes) != 1:
            raise UserError(f"{path} is recorded in dvc.lock and {'twice' if homes else 'not'} among the run's results: "
                          "nothing is published.")
        place = str(folder / homes[0] / path)
        store, _, found = build(HashFileDB(localfs, place), place, localfs, "md5")  # has no state, so each byte is read
        if found.hash_info.value != md5:
            raise UserError(f"{path} does not have the bytes that dvc.lock records: nothing is published.")
        objects += [(store, found.hash_info)] if homes == ["dvc"] else []
    return lock, outputs, {name[4:]: file for name, file in files.items() if name.startswith("git/")}, objects


def below(path: str, outputs: Mapping[str, str]) -> bool:
    """Whether `path` is one of the outputs, or a file in one that is a folder."""
    return any(str(each) in outputs for each in (path, *Path(path).parents))


def _files(folder: Path) -> dict[str, Path]:
    """Each file below `folder` by its name; UserError where one is no regular file, too large, or at another place."""
    found, size = {}, 0
    for path in folder.rglob("*"):
        name, status = path.relative_to(folder).as_posix(), path.lstat()
        if stat.S_ISDIR(status.st_mode):
            continue
        placed = name == "dvc.lock" or name[:4] in ("git/", "dvc/") and PLACE.fullmatch(name[4:])
        if not placed or not stat.S_ISREG(status.st_mode):
            raise UserError(f"{name!r} among the run's results is no regular file with the place and name of an output "
                          "(letters, digits and _.=+- below data/, models/, metrics/, reports/): nothing is published.")
        found[name], size = path, size + status.st_size
        if status.st_size > {"dvc.": MOST_LOCK, "git/": MOST_KEPT}.get(name[:4], MOST_ALL) or size > MOST_ALL:
            raise UserError(f"{name} is too large to be published ({status.st_size} bytes, {size} with those before it).")
    return found


def remote(environment: Mapping[str, str] = os.environ) -> dict:
    """DVC's configuration for REMOTE_URL, REMOTE_ENDPOINT, REMOTE_USER and REMOTE_PASSWORD; no file gets them."""
    url, user, password, endpoint = (
        environment.get(f"REMOTE_{each}", "").strip() for each in ("URL", "USER", "PASSWORD", "ENDPOINT"))
    scheme, account = urlsplit(url).scheme, user or password
    settings = {"url": url, "verify": True}  # DVC does not check what comes from an HTTP remote otherwise
    if scheme in ("http", "https"):
        settings |= {"method": "PUT"} | ({"auth": "basic", "user": user, "password": password} if account else {})
    elif scheme == "s3":
        settings |= {"access_key_id": user, "secret_access_key": password} if account else {}
        settings |= {"endpointurl": endpoint} if endpoint else {}
    elif url and account:
        raise UserError("REMOTE_USER and REMOTE_PASSWORD are for a REMOTE_URL that begins with http, https or s3.")
    return {"core": {"remote": "storage"}, "remote": {"storage": settings}} if url else {}


@contextlib.contextmanager
def _connected(configuration: dict) -> Iterator[Repo]:
    with Repo(str(root()), config=configuration) as repo:
        if not repo.config["core"].get("remote"):
            raise UserError("No DVC remote is configured (the variable DVC_REMOTE_URL).")
        # DVC itself takes a refusal for files that do not exist
        if problem := data_problem(repo, "the secrets for it, which a run of a fork or of Dependabot has not"):
            raise UserError(f"The DVC remote {problem}")
        try:
            yield repo
        except Exception as error:  # each kind of remote raises its own
            why = " ".join(str(error).split())[:200]
            raise UserError(f"The DVC remote did not do its part ({type(error).__name__}: {why}).") from None


def pull(of_base: Mapping[str, str], configuration: dict) -> int:
    """Bring what the remote has of this commit's outputs, and of the base's executed notebooks; how many files came."""
    with _connected(configuration) as repo:
        repo.cloud.pull([HashInfo("md5", md5) for path, md5 in of_base.items() if path.endswith(".ipynb")])
        return repo.pull(allow_missing=True, force=True)["stats"]["fetched"]


def push(objects: list[tuple], configuration: dict) -> int:
    """Push DVC's objects (store, hash) to the remote; how many files the remote did not have."""
    with _connected(configuration) as repo:
        target = repo.cloud.get_remote_odb()
        for store, found in objects:  # the list of a folder is in memory, from where an HTTP remote cannot take it
            transfer(store, repo.cache.local, {found}, shallow=False)
        done = [transfer(repo.cache.local, target, {found}, shallow=False) for _, found in objects]
    if failed := sum(len(each.failed) for each in done):
        raise UserError(f"The DVC remote did not take {failed} files.")
    return sum(len(each.transferred) for each in done)
