"""A scratch copy of the project: small digits, few epochs, a git repository of its own, run once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]

SMALL = {"cnn": {"epochs": 6, "width": 8, "hidden": 32, "lr": 0.02}, "mlp": {"epochs": 20, "hidden": 64}, "linear": {"epochs": 15, "lr": 0.02}}


class Copy:
    """A copy of the project in the folder `root`."""

    def __init__(self, root: Path):
        self.root = root
        held = root.parent
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_", "GIT_", "OUTPUT_ROOT", "PROGRESS_FILE"))},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]), "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(held / "site"), "HOME": str(held / "home"), "CI": "",
            **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }
        (held / "home").mkdir(exist_ok=True)

    def call(self, *command: str, code: int | None = 0) -> str:
        """What `command` prints, run in the copy; fails if it does not end with `code`."""
        done = subprocess.run(command, cwd=self.root, env=self.variables, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert code is None or done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def pipeline(self, *arguments: str, code: int | None = 0) -> str:
        return self.call(sys.executable, "-m", "pipeline", *arguments, code=code)

    def git(self, *arguments: str) -> str:
        return self.call("git", *arguments)

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", "as it is")

    def dvc(self, *arguments: str, code: int | None = 0) -> str:
        return self.call(sys.executable, "-m", "dvc", *arguments, code=code)


def copied(folder: Path) -> Copy:
    """The project's sources in `folder`, with small parameters, committed."""
    root = folder / "project"
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, listed):
        if (ROOT / name).is_file() and not name.startswith("metrics/") and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes((ROOT / name).read_bytes())
    yaml = YAML()
    values = yaml.load((root / "params.yaml").read_text(encoding="utf-8"))
    values["data"]["source"] = "digits"
    for model, changed in SMALL.items():
        values["models"][model].update(changed)
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(values, file)
    copy = Copy(root)
    copy.git("init", "--quiet")
    copy.commit()
    return copy


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Copy:
    """The copy after `python -m pipeline run`, committed. A test leaves it as it was."""
    copy = copied(tmp_path_factory.mktemp("lab"))
    copy.pipeline("run")
    copy.commit()
    return copy
