"""Makes a project from the template in nbproof's repository; Copier can update it later."""

import importlib.util
import json
import keyword
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.workspace.pins import lock

HOME = Path(__file__).resolve().parents[2]


def new(folder: Path, vendor: bool = False) -> int:
    """Make a project in `folder`, which is not there yet, in a git repository of its own.

    Its workflows call those of nbproof's repository; `vendor` copies them, and so does a source
    that GitHub could not reach."""
    import copier

    name = re.sub("[^a-z0-9_]", "_", folder.resolve().name.lower())
    if not name[0].isalpha() or keyword.iskeyword(name) or importlib.util.find_spec(name):
        raise UserError(f"The project's package cannot be called {name}: give the folder a name "
                        "that begins with a letter from a to z, and that no module has.")
    if folder.exists():
        raise UserError(f"{folder} is there already: name a new folder.")
    template, commit, source = origin()
    answers = {"source": source} | ({"vendor": True} if vendor else {})
    try:
        copier.run_copy(template, folder, answers, vcs_ref=commit, defaults=True, quiet=True)
        lock(folder)
    except BaseException:  # the same command can be called again
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if around := _git(folder, "rev-parse", "--show-toplevel"):
        print(f"{folder} is a part of the repository {around}, where it is not committed. GitHub "
              f"does not read its .github there; git init in {folder} makes it one of its own.")
    else:
        _git(folder, "init", "--quiet", "--initial-branch=main")
        _git(folder, "add", "--all")
        if _git(folder, "commit", "--quiet", "--message=Made by nbproof new") is None:
            print(f"Nothing in {folder} is committed yet, for git does not know you: set git "
                  "config user.name and user.email, then git commit there.")
    print(f"{folder} is made: go there and call make run.")
    return 0


def origin() -> tuple[str, str, str]:
    """Return the place of the template, its commit, and the address at which uv finds both."""
    commit = _git(HOME, "rev-parse", "HEAD")
    if (HOME / "copier.yml").exists() and commit:
        pushed = _git(HOME, "branch", "--remotes", "--contains", commit)
        remote = _git(HOME, "remote", "get-url", "origin") if pushed else None
        return str(HOME), commit, address(remote) if remote else HOME.as_uri()
    try:  # PEP 610: where pip and uv note what a package was installed from
        noted = json.loads(distribution("nbproof").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        noted = {}
    if "vcs_info" not in noted:
        raise UserError("The template is in nbproof's git repository, and this nbproof is not from "
                        "there: pip install 'nbproof @ git+ADDRESS', or call make new in a clone.")
    return f"git+{noted['url']}", noted["vcs_info"]["commit_id"], noted["url"]


def address(remote: str) -> str:
    """Return a git remote as a URL without a password: also `git@host:path` and a folder."""
    if "://" in remote:
        return re.sub(r"^(https?://)[^/@]*@", r"\1", remote)
    if match := re.match(r"([^/\\]{2,}):(.*)", remote):  # one letter is a drive of Windows
        return f"ssh://{match[1]}/{match[2].lstrip('/')}"
    return (HOME / remote).resolve().as_uri()


def _git(folder: Path, *words: str) -> str | None:
    """Return what git prints; None if it fails or is not there."""
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None
