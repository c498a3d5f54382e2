"""A project made from the template as it is in the work tree, a git repository of its own, run once."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Copy:
    """A project in the folder `root`; what a test calls in it reads nothing of the person who tests."""

    def __init__(self, root: Path):
        self.root = root
        home = root.parent / "home"
        home.mkdir(exist_ok=True)
        personal = ("MLFLOW_", "DVC_", "GIT_", "NBPROOF_", "JUPYTER")
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(personal)},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]), "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(root.parent / "site"), "HOME": str(home), "PYTHONPATH": str(ROOT),
            **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

    def call(self, *command: str, code: int | None = 0) -> str:
        """What `command` prints in the project; fails if it does not end with `code`."""
        done = subprocess.run(command, cwd=self.root, env=self.variables, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL)
        said = done.stdout + done.stderr
        assert code is None or done.returncode == code, f"{command} ended with {done.returncode}:\n{said}"
        return said

    def nbproof(self, *arguments: str, code: int | None = 0) -> str:
        return self.call(sys.executable, "-m", "nbproof", *arguments, code=code)

    def git(self, *arguments: str) -> str:
        return self.call("git", *arguments)

    def dvc(self, *arguments: str, code: int | None = 0) -> str:
        return self.call(sys.executable, "-m", "dvc", *arguments, code=code)


def made(folder: Path, name: str = "wine") -> Copy:
    """A project of the template in `folder`, committed."""
    import copier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Copier's, of changes in the template that are not committed
        copier.run_copy(str(ROOT), folder / name, {"source": ROOT.as_uri()}, vcs_ref="HEAD", defaults=True, quiet=True)
    copy = Copy(folder / name)
    copy.git("init", "--quiet", "--initial-branch=main")
    copy.git("add", "--all")
    copy.git("commit", "--quiet", "-m", "made")
    return copy


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Copy:
    """A project after `nbproof run`, committed. A test leaves it as it was."""
    copy = made(tmp_path_factory.mktemp("lab"))
    copy.nbproof("run")
    copy.git("add", "--all")
    copy.git("commit", "--quiet", "-m", "run")
    return copy
