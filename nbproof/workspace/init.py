"""`nbproof init`: a repository with notebooks becomes a project; no notebook is changed."""

import re
import shlex
import subprocess
from pathlib import Path

import jinja2

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import CONTRACT, write_whole
from nbproof.workspace import requirements
from nbproof.workspace.entry import with_lines
from nbproof.workspace.git import ATTRIBUTES
from nbproof.workspace.new import origin

TEMPLATE = Path(__file__).with_name("template")
IGNORED = ("/.venv/", "/scratch/", "/dvc_plots/", "/reports/", "/mlflow.db*", "/mlartifacts/",
           "mlruns/", "__pycache__/", ".ipynb_checkpoints/", ".*.[0-9]*")
PROJECT = """\
# What nbproof must know of this project; docs/contract.md of nbproof explains each key.
name: {name}
pins: {lock}
# metric: {{key: accuracy, goal: max}} # the number by which models are compared
"""
PARAMS = "# The values of parameters, by stage: nbproof add writes those of a notebook.\n{}\n"
STAGES = "# What each notebook reads and writes: nbproof add writes it.\nstages: {}\n"
# What the workflows call; people call nbproof itself.
MAKEFILE = """\
setup:
	python3 -m venv .venv
	.venv/bin/pip install -q -r {lock} 'nbproof[remote] @ git+{source}@{commit}'
"""


def init(dry_run: bool) -> int:
    """Make the current folder, which has notebooks, a project; with `dry_run` only print it."""
    folder = Path.cwd()
    if (folder / CONTRACT).exists():
        raise UserError(f"{folder} is a project already: nbproof add NOTEBOOK makes a stage.")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.ipynb"))
    notebooks = [name for name in names if "/." not in f"/{name}"]  # not .ipynb_checkpoints
    if not notebooks:
        raise UserError(f"There are no notebooks in {folder}: nbproof new DIR makes a project with "
                        "some.")
    if subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True).returncode:
        print("git init: this folder is in no repository yet.")
        if not dry_run:
            subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], check=True)
    files = contents(folder)
    if dry_run:
        print(*(f"--- {name}\n{text}" for name, text in files.items()), sep="\n")
        return 0
    for name, text in files.items():
        write_whole(folder / name, text)
    print(f"Written: {', '.join(files)}. No notebook was changed. Next: nbproof add "
          f"{shlex.quote(notebooks[0])}; nbproof git sets up diffs and merges by cells.")
    return 0


def contents(folder: Path) -> dict[str, str]:
    """Return the text of each file that makes `folder` a project, by its path."""
    name = re.sub("[^a-z0-9]+", "_", folder.name.lower()).strip("_")
    name = name if name[:1].isalpha() else f"project_{name}".strip("_")
    files = {
        CONTRACT: PROJECT.format(name=name, lock=requirements.LOCK),
        "params.yaml": PARAMS, "dvc.yaml": STAGES,
        requirements.LOCK: requirements.lock_text(folder),
        ".gitignore": with_lines(folder / ".gitignore", IGNORED),
        ".gitattributes": with_lines(folder / ".gitattributes", ATTRIBUTES),
    }
    for path in (".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        files[path] = (TEMPLATE / path).read_text(encoding="utf-8")
    files |= workflows(folder)
    return {path: text for path, text in files.items()
            if path in (".gitignore", ".gitattributes") or not (folder / path).exists()}


def workflows(folder: Path) -> dict[str, str]:
    """Return the workflows that run and review the project on GitHub, and what they call.

    They call nbproof's own, so both must be on GitHub; {} where one is not.
    """
    own = subprocess.run(["git", "remote", "get-url", "origin"], cwd=folder, capture_output=True,
                         text=True).stdout
    if "github.com" not in own or (folder / "Makefile").exists():
        return {}
    try:
        _, commit, source = origin()
    except UserError as error:
        print(f"No workflows for GitHub: {error}")
        return {}
    match = re.fullmatch(r"(?:https://|ssh://git@)github\.com/(.+?)(?:\.git)?/?", source)
    if not match:
        return {}
    values = {"github": match[1], "_copier_conf": {"vcs_ref_hash": commit}}
    files = {"Makefile": MAKEFILE.format(lock=requirements.LOCK, source=source, commit=commit)}
    for name in ("report.yml", "comment.yml"):
        path = TEMPLATE / ".github/workflows" / f"{{% if not vendor %}}{name}{{% endif %}}.jinja"
        text = jinja2.Template(path.read_text("utf-8"), keep_trailing_newline=True)
        files[f".github/workflows/{name}"] = text.render(values)
    return files
