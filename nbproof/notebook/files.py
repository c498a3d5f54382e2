"""Where a project is, where its notebooks read and write, and files that are whole or not there."""

import copy
import functools
import hashlib
import os
import shutil
import sys
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.progress import in_jupyter

CONTRACT = "project.yaml"


@functools.cache
def root() -> Path:
    """The project's folder: the nearest one, here or above, with a project.yaml."""
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / CONTRACT).is_file():
            return folder
    raise UserError(f"There is no {CONTRACT} in {here} or above: go into a project, or make one with nbproof new.")


def source(name: str) -> Path:
    """A file or folder that an earlier stage made, `name` relative to the project; the error says how to make it."""
    path = root() / name
    if not path.exists():
        raise FileNotFoundError(f"{name} is not there yet: `make run` (or `dvc pull`) makes it")
    if not os.environ.get("NBPROOF_OUTPUT") and (key := _changed_since(name)):  # of a stage DVC knows it
        print(f"{name} was made with another value of {key} than params.yaml has now: make run brings it up to date.",
              file=sys.stderr)
    return path


def _changed_since(name: str) -> str:
    """The first parameter of the stage that made the file or folder `name` which params.yaml has changed since."""
    now, lock = map(_content, (root() / "params.yaml", root() / "dvc.lock"))
    for stage in (lock.get("stages") or {}).values():
        if any(name == each["path"] or name.startswith(f"{each['path']}/") for each in stage.get("outs", ())):
            for key, value in stage.get("params", {}).get("params.yaml", {}).items():
                found = functools.reduce(lambda section, part: (section or {}).get(part), key.split("."), now)
                if found != value:
                    return key
    return ""


def _content(path: Path) -> dict:
    """What a YAML file holds that may be missing."""
    from ruamel.yaml import YAMLError

    try:
        return from_yaml(path.read_text(encoding="utf-8")) or {} if path.exists() else {}
    except YAMLError:  # a merge may be at work; whatever runs stages says so
        return {}


def from_yaml(text: str) -> object:
    """What a YAML text says, as DVC reads it (1.2: `1e-3` is a number); ruamel.yaml's YAMLError where it is none."""
    return copy.deepcopy(_parsed(text))


@functools.lru_cache(8)  # a long dvc.lock takes a third of a second, params.yaml a twentieth, and both are read often
def _parsed(text: str) -> object:
    from ruamel.yaml import YAML  # a tenth of a second, so only when it is needed

    return YAML(typ="safe").load(text)


def output(name: str) -> Path:
    """Where to write the file `name`: in a stage its place in the project, by hand the same place below scratch/."""
    path = Path(os.environ.get("NBPROOF_OUTPUT") or root() / "scratch") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def output_folder(name: str) -> Path:
    """The same for a folder: it is there and empty."""
    path = output(name)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def write(name: str, content: bytes | str) -> Path:
    """Write an output whole; see `output` and `write_whole`. Numbers that equal those of the stage say so."""
    path = write_whole(output(name), content)
    if name.startswith("metrics/") and name.endswith(".json") and in_jupyter() and _is_recorded(name, path):
        print(f"These are the numbers that dvc.lock records: {name} is the same, byte for byte.")
    return path


def _is_recorded(name: str, path: Path) -> bool:
    """Whether dvc.lock has the output `name` with the bytes of `path`."""
    lock = root() / "dvc.lock"
    stages = (from_yaml(lock.read_text(encoding="utf-8")) or {}).get("stages", {}) if lock.exists() else {}
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    outs = [out for each in stages.values() for out in each.get("outs", [])]
    return any(out["path"] == name and out.get("md5") == md5 for out in outs)


def write_whole(path: Path, content: bytes | str) -> Path:
    """Write beside `path`, then rename: a full disk or a kill leaves the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files and their names: the same content has the same digest in any clone."""
    whole = hashlib.sha256()
    for file in sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]:
        if file != path:
            whole.update(f"{file.relative_to(path).as_posix()}\0".encode())
        with file.open("rb") as content:
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()
