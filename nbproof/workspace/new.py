"""A new project from the template in nbproof's repository, by Copier, which can bring it up to date later."""

import json
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from nbproof.notebook.errors import UserError

HOME = Path(__file__).resolve().parents[2]


def new(folder: Path) -> int:
    """Make a project in `folder`, which is not there yet, in a git repository of its own."""
    import copier

    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is there already: name a folder that is not (make new DIR=../mine).")
    template, commit, source = origin()
    try:
        copier.run_copy(template, folder, {"source": source}, vcs_ref=commit, defaults=True, quiet=True)
    except (copier.errors.CopierError, OSError) as error:  # the latter when git cannot get it
        raise UserError(f"The project could not be made from {source}: {' '.join(str(error).split())}") from None
    if _git(folder, "rev-parse", "--git-dir") is None:
        _git(folder, "init", "--quiet", "--initial-branch=main")
        _git(folder, "add", "--all")
        _git(folder, "commit", "--quiet", "--message=Made by nbproof new")
    print(f"{folder} is made: go there and call make run.")
    return 0


def origin() -> tuple[str, str, str]:
    """Where the template is, its commit, and the address by which other machines find both; UserError outside of git."""
    commit = _git(HOME, "rev-parse", "HEAD")
    if (HOME / "copier.yml").exists() and commit:
        pushed = _git(HOME, "branch", "--remotes", "--contains", commit) and _git(HOME, "remote", "get-url", "origin")
        return str(HOME), commit, pushed or HOME.as_uri()
    try:  # PEP 610: where pip and uv note what a package was installed from
        noted = json.loads(distribution("nbproof").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        noted = {}
    if "vcs_info" not in noted:
        raise UserError("The template is in nbproof's git repository, and this nbproof is not from there: install it by "
                      "pip install 'nbproof @ git+ADDRESS', or call make new in a clone.")
    return f"git+{noted['url']}", noted["vcs_info"]["commit_id"], noted["url"]


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None if it refuses, or is not there."""
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None
