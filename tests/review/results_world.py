"""The project of tiny.py on GitHub: the branch `topic`, results of a run of its head, a remote."""

import copy
import hashlib
import shutil
import subprocess
from pathlib import Path

from dvc.utils.serialize import modify_yaml
from github_api import GitHub

from nbproof.review import ci, publish

from .tiny import Tiny

KEPT = {"dvc.lock", "metrics/compare.json", "metrics/answers.csv", "metrics/oak.json",
        "metrics/oak.csv", "metrics/fir.json", "metrics/fir.csv"}


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Someone", "-c", "user.email=a@b"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True,
                          text=True).stdout.strip()


def set_remote(folder: Path, url: object) -> None:
    """Give a checkout a DVC remote, none for ""."""
    (folder / ".dvc/config").write_text(
        f"[core]\n    remote = r\n['remote \"r\"']\n    url = {url}\n" if url else "")


def make(folder: Path, inside) -> None:
    """Make what each test copies: addresses are relative. The run has a new model, and elm not."""
    (folder / "work").mkdir(parents=True)
    inside(folder / "work")
    project = Tiny(folder / "work").begin()
    git(folder, "clone", "--quiet", "--bare", "work", "origin.git")
    project.git("remote", "add", "origin", "../origin.git")
    (folder / "remote").mkdir()
    for name, origin in (("trusted", "../origin.git"), ("trusted/publishing", "../../origin.git")):
        git(folder, "clone", "--quiet", "--branch=main", "origin.git", name)
        git(folder / name, "remote", "set-url", "origin", origin)
    set_remote(folder / "trusted", "../../remote")
    shutil.copytree(folder / "work", folder / "runner")
    run = copy.deepcopy(project)
    run.root = folder / "runner"
    run.models = {"oak": {"rate": 0.02}, "fir": {"rate": 1}}
    run.scores = {"oak": [0.98, 0.995], "fir": [0.5, 0.6]}
    inside(run.root)
    run.run()
    with modify_yaml(run.root / "dvc.lock") as lock:  # as `nbproof run` does
        del lock["stages"]["train@elm"]
    ci.results()


class World:
    """`work` is a person's checkout of `topic`, `runner` a run of its head, `results` what that
    uploads, `trusted` the checkout of the job that publishes; `remote` is DVC's."""

    def __init__(self, made: Path, folder: Path, monkeypatch, inside) -> None:
        shutil.copytree(made, folder, symlinks=True)
        self.inside, self.monkeypatch, self.api = inside, monkeypatch, GitHub()
        self.origin, self.work, self.runner, self.results, self.remote, self.trusted = (
            folder / name for name in ("origin.git", "work", "runner", "runner/scratch/results",
                                       "remote", "trusted"))
        self.sha = git(self.work, "rev-parse", "topic")
        for name, value in self.api.variables(folder).items():
            monkeypatch.setenv(name, value)
        self.api.artifacts = {"42": {"results": self.results}}

    def push(self) -> str:
        """Commit the checkout, and push it; return the commit."""
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "-m", "work")
        git(self.work, "push", "--quiet", "origin", "HEAD:topic")
        return git(self.work, "rev-parse", "HEAD")

    def set_result(self, path: str, content: bytes) -> None:
        """Change a result that DVC keeps, as another machine would have made it."""
        (self.results / "dvc" / path).write_bytes(content)
        with modify_yaml(self.results / "dvc.lock") as lock:
            [out] = [out for stage in lock["stages"].values() for out in stage["outs"]
                     if out["path"] == path]
            out["md5"] = hashlib.md5(content).hexdigest()

    def publish(self, sha: str = "", branch: str = "topic", commits: bool = True) -> str:
        """Publish; return what was said."""
        self.inside(self.trusted)
        return publish.publish(self.results, sha or self.sha, branch, "main", "42", commits)
