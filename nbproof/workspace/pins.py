"""`nbproof pins`: lock each dependency group of pyproject.toml, with hashes, in its own file."""

import subprocess
import tempfile
import tomllib
from pathlib import Path

import uv

from nbproof.notebook.errors import UserError
from nbproof.runner import RESULTS
from nbproof.workspace import bootstrap

COMPILE = (
    "pip", "compile", "--quiet", "--universal", "--python-version=3.11", "--generate-hashes",
    "--no-header", "--no-annotate", "--no-emit-index-url",
)
OPTIONS = {
    "results": ["--no-deps"],  # what the group names, and not what those packages bring along
    "cpu": ["--torch-backend=cpu"],
}


def lock(folder: Path, upgrade: bool = False, cpu: bool = False) -> None:
    """Write requirements.txt from the group `run`, and requirements/GROUP.txt from any other.

    Versions stay as they are, except with `upgrade`. Each lock is held to the versions of the
    locks before it, so that they can share an environment. `cpu` adds requirements/cpu.txt: the
    group `run` with PyTorch's build for processors alone. Raise UserError where uv fails.
    """
    groups = list(tomllib.loads((folder / "pyproject.toml").read_text())["dependency-groups"])
    (folder / "requirements").mkdir(exist_ok=True)
    itself, versions = "-e .", ""  # how nbproof gets into an environment
    for group in [*groups, *(["cpu"] if cpu else [])]:
        name = "requirements.txt" if group == "run" else f"requirements/{group}.txt"
        locked = _compiled(folder, group, name, versions, upgrade)
        lines = locked.splitlines(keepends=True)
        versions += "".join(line for line in lines if not line.startswith("nbproof"))
        if group == "run":  # a project that uses nbproof names it in this group
            itself = next((line.strip() for line in lines if line.startswith("nbproof")), itself)
        needs = ("run", "cpu", "review") if itself == "-e ." else ("serve",)
        head = f"{itself}\n" if group in needs else ""
        if group == "results":
            head = f"# nbproof results: {RESULTS}\n"
        (folder / name).write_text(head + locked, encoding="utf-8")


def _compiled(folder: Path, group: str, name: str, versions: str, upgrade: bool) -> str:
    """Return the lock of one group, in which no package has another version than in `versions`."""
    source = ["pyproject.toml", "--group=run"] if group in ("run", "cpu") else [f"--group={group}"]
    options = [*OPTIONS.get(group, []), *(["--upgrade"] if upgrade else [])]
    bootstrap.set_index()
    with tempfile.TemporaryDirectory() as temporary:
        constraints = Path(temporary) / "versions.txt"
        constraints.write_text(versions, encoding="utf-8")
        options += ["--constraints", str(constraints), "--output-file", name]
        done = subprocess.run([uv.find_uv_bin(), *COMPILE, *source, *options], cwd=folder)
    if done.returncode:
        raise UserError(f"uv could not lock the group {group} of {folder}: see above.")
    return (folder / name).read_text(encoding="utf-8")
