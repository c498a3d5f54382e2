"""The workflows of a new project, rendered as Copier does."""

import shutil
from pathlib import Path

from jinja2 import Environment
from projects import ROOT

TEMPLATE = ROOT / "nbproof" / "workspace" / "template" / ".github"


def callers(folder: Path, github: str, commit: str, vendor: bool = False) -> Path:
    """Write .github of a project whose workflows are called at `commit` of the repository `github`,
    or are copied; return it."""
    words = {"github": github, "vendor": vendor, "_copier_conf": {"vcs_ref_hash": commit}}
    render = Environment(keep_trailing_newline=True).from_string
    for path in TEMPLATE.rglob("*"):
        name = render(path.name.removesuffix(".jinja")).render(words)
        target = folder / path.parent.relative_to(TEMPLATE) / name
        if not name or path.is_dir():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".jinja":
            target.write_text(render(path.read_text(encoding="utf-8")).render(words))
        else:
            shutil.copyfile(path, target)
    return folder
