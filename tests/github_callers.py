"""The .github of a new project, made by Copier from the template as it is here."""

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import copier
from projects import ROOT


@cache
def _template() -> tuple[Path, str]:
    """A repository with the template of .github alone, and its commit."""
    folder = Path(tempfile.mkdtemp(prefix="template-"))
    for name in (".github", "nbproof/workspace/template/.github"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True)
    shutil.copy(ROOT / "copier.yml", folder)
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", "template")):
        subprocess.run(["git", *words], cwd=folder, check=True)
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folder, text=True).strip()
    return folder, commit


def callers(folder: Path, source: str, **answers: bool) -> str:
    """Write .github of a project that comes from nbproof at the address `source` into `folder`;
    return the commit of nbproof that it has."""
    template, commit = _template()
    with tempfile.TemporaryDirectory() as made:
        copier.run_copy(str(template), made, {"source": source, "name": "x", **answers},
                        vcs_ref=commit, defaults=True, quiet=True)
        shutil.copytree(Path(made) / ".github", folder / ".github")
    return commit
