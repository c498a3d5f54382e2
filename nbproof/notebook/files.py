"""The project's folder, what notebooks read and write there, and files that are written whole."""

import copy
import functools
import hashlib
import os
import shutil
from pathlib import Path

from nbproof.notebook.errors import UserError

CONTRACT = "project.yaml"


@functools.cache
def root() -> Path:
    """Return the project's folder: the nearest one, here or above, with a project.yaml."""
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / CONTRACT).is_file():
            return folder
    raise UserError(f"There is no {CONTRACT} in {here} or above: go into a project, or make one "
                    "with nbproof new.")


def source(name: str) -> Path:
    """Return the file or folder `name` that an earlier stage made; the error says how."""
    path = root() / name
    if not path.exists():
        raise FileNotFoundError(f"{name} is not there yet: nbproof run (or nbproof pull) makes it")
    return path


def from_yaml(text: str) -> object:
    """Parse YAML as DVC does (1.2: `1e-3` is a number). Raises ruamel.yaml's YAMLError."""
    return copy.deepcopy(_parsed(text))


@functools.lru_cache(8)  # params.yaml takes a twentieth of a second, and is read often
def _parsed(text: str) -> object:
    from ruamel.yaml import YAML  # a tenth of a second, so only when it is needed

    return YAML(typ="safe").load(text)


def output(name: str) -> Path:
    """Return where to write the file `name`: its path in the project, or below scratch/ by hand."""
    path = Path(os.environ.get("NBPROOF_OUTPUT") or root() / "scratch") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def output_folder(name: str) -> Path:
    """Return the same for a folder, which is then there and empty."""
    path = output(name)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def write(name: str, content: bytes | str) -> Path:
    """Write the output `name` whole; see `output` and `write_whole`."""
    return write_whole(output(name), content)


def write_whole(path: Path, content: bytes | str) -> Path:
    """Write beside `path`, then rename: a full disk or a kill leaves the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names, as hexadecimal."""
    whole = hashlib.sha256()
    inside = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in inside:
        if file != path:
            whole.update(f"{file.relative_to(path).as_posix()}\0".encode())
        with file.open("rb") as content:
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()
