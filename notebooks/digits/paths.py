"""Where the notebooks read and write, whatever folder they are run from."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def source(name: str) -> Path:
    """A file that an earlier notebook made, `name` relative to the project; FileNotFoundError says how to make it."""
    path = ROOT / name
    if not path.exists():
        raise FileNotFoundError(f"{name} is not there yet: `make run` (or `dvc pull`) makes it")
    return path


def output(name: str) -> Path:
    """Where to write `name`: below OUTPUT_ROOT, or below scratch/ when nobody set it, so that exploring changes no result."""
    path = Path(os.environ.get("OUTPUT_ROOT") or ROOT / "scratch") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write(name: str, content: bytes | str) -> Path:
    """Write a whole file or none: beside its place first, then renamed into it (a full disk leaves no torso)."""
    path = output(name)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path
