"""`nbproof pins`: lock each dependency group of pyproject.toml, with hashes, in its own file."""

import subprocess
import tempfile
import tomllib
from pathlib import Path

import uv

from nbproof.notebook.errors import UserError
from nbproof.runner import RESULTS
from nbproof.workspace import bootstrap

COMPILE = ("--universal", "--python-version=3.11", "--generate-hashes", "--no-emit-index-url",
           "--no-header", "--no-annotate")
SOURCES = {
    "run": ["pyproject.toml", "--group=run"],
    "results": ["--group=results", "--no-deps"],  # what it names, not what they bring along
    "cpu": ["pyproject.toml", "--group=run", "--torch-backend=cpu"],
}


def lock(folder: Path, upgrade: bool = False, cpu: bool = False) -> None:
    """Write requirements.txt from the group `run`, and requirements/GROUP.txt from any other.

    Versions stay as they are, except with `upgrade`. A lock has no other version of a package than
    the locks before it, so that they can share an environment. `cpu` adds requirements/cpu.txt: the
    group `run` with PyTorch's build for processors alone. Raise UserError where uv fails.
    """
    groups = list(tomllib.loads((folder / "pyproject.toml").read_text())["dependency-groups"])
    (folder / "requirements").mkdir(exist_ok=True)
    itself = "-e ."
    bootstrap.set_index()
    with tempfile.TemporaryDirectory() as temporary:
        versions = Path(temporary) / "versions.txt"
        versions.touch()
        for group in [*groups, *(["cpu"] if cpu else [])]:
            name = "requirements.txt" if group == "run" else f"requirements/{group}.txt"
            target = folder / name
            options = [*SOURCES.get(group, [f"--group={group}"]), "-c", str(versions), "-q"]
            command = [uv.find_uv_bin(), "pip", "compile", *COMPILE, *options, "-o", str(target)]
            if subprocess.run(command + ["--upgrade"] * upgrade, cwd=folder).returncode:
                raise UserError(f"uv could not lock the group {group}, see above.")
            lines = target.read_text(encoding="utf-8").splitlines(keepends=True)
            with versions.open("a", encoding="utf-8") as file:
                file.writelines(line for line in lines if not line.startswith("nbproof"))
            if group == "run":  # a project that uses nbproof names it in this group
                itself = next((line.strip() for line in lines if line[:7] == "nbproof"), itself)
            # Groups that do not name nbproof, but whose environment needs it:
            needs = ("run", "cpu", "review") if itself == "-e ." else ("review", "serve")
            head = [f"{itself}\n"] if group in needs else []
            if group == "results":
                head = [f"# nbproof results: {RESULTS}\n"]
            target.write_text("".join(head + lines), encoding="utf-8")
