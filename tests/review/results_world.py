"""A repository with a branch `topic`, the results of a run of its head, and a DVC remote."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from dvc.repo import Repo
from github_api import GitHub, install_gh

from nbproof.review import publish

# Outputs by path; a dict is a folder. metrics/ and reports/small are kept by git.
BEFORE = {
    "models/cnn": {"MLmodel": b"old", "data/weights": b"old weights"},
    "models/mlp": b"the same",
    "reports/export@cnn.ipynb": b"{}",
    "metrics/cnn.json": b'{"rmse": 0.5, "n": NaN}',
    "metrics/gone.json": b"{}",
    "reports/small": {"a.txt": b"a", "b.txt": b"b"},
}
AFTER = {
    "models/cnn": {"MLmodel": b"new", "data/weights": b"new weights"},
    "models/mlp": b"the same",
    "reports/export@cnn.ipynb": b'{"new": 1}',
    "metrics/cnn.json": b'{"rmse": 0.4, "n": NaN}',
    "metrics/new.csv": b"epoch\n1\n",
    "reports/small": {"b.txt": b"b2", "c/d.txt": b"d"},
}
KEPT = ("metrics/", "reports/small")


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Someone", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


def files_of(outputs: dict) -> dict[str, bytes]:
    """Each file by its path."""
    return {f"{path}/{name}" if name else path: data
            for path, content in outputs.items()
            for name, data in (content.items() if isinstance(content, dict) else [("", content)])}


def md5(content: bytes | dict) -> str:
    """The sum that dvc.lock has for a file, or for a folder: that of DVC's list of its files."""
    if isinstance(content, bytes):
        return hashlib.md5(content).hexdigest()
    files = [{"md5": md5(data), "relpath": name} for name, data in sorted(content.items())]
    return md5(json.dumps(files).encode()) + ".dir"


def lock(outputs: dict) -> str:
    outs = [{"path": path, "hash": "md5", "md5": md5(content), "size": 1}
            for path, content in outputs.items()]
    stages = {"cnn": {"cmd": "true", "outs": outs}}
    return json.dumps({"schema": "2.0", "stages": stages})  # JSON is YAML


def write(folder: Path, contents: dict[str, bytes | str]) -> None:
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())


def write_project(folder: Path, outputs: dict) -> None:
    """A project with one stage that has these outputs, and the dvc.lock that records them."""
    outs = [{path: {"cache": not path.startswith(KEPT)}} for path in outputs
            if not path.endswith(".json")]
    metrics = [{path: {"cache": False}} for path in outputs if path.endswith(".json")]
    stage = {"cmd": "true", "outs": outs, "metrics": metrics}
    write(folder, {"project.yaml": "name: tiny\nmetric: {key: rmse, goal: min}\n"
                                   "tolerance: {absolute: 0.01}\n",
                   "dvc.yaml": json.dumps({"stages": {"cnn": stage}}), "dvc.lock": lock(outputs),
                   "params.yaml": "{}", ".gitattributes": "* filter=evil",
                   ".gitignore": "/models\n/reports/*.ipynb\n/scratch\n"} | files_of(outputs))


def write_results(folder: Path, outputs: dict) -> None:
    """Write what the step `results` lays out."""
    write(folder, {"dvc.lock": lock(outputs)} | {
        f"{'git' if path.startswith(KEPT) else 'dvc'}/{path}": data
        for path, data in files_of(outputs).items()})


def dvc_remote(url: object) -> str:
    return f"[core]\n    remote = r\n['remote \"r\"']\n    url = {url}\n"


class World:
    """`work` is a person's checkout of `topic`, `results` what a run of its head uploaded,
    `trusted` the checkout of the job that publishes; `remote` is DVC's."""

    def __init__(self, folder: Path, monkeypatch, inside) -> None:
        self.inside, self.monkeypatch, self.api = inside, monkeypatch, GitHub()
        self.origin, self.work, self.results, self.remote, self.trusted = (
            folder / name for name in ("origin.git", "work", "results", "remote", "trusted"))
        for each in (self.origin, self.work, self.results, self.remote, self.trusted):
            each.mkdir()
        git(self.origin, "init", "--bare", "--quiet")
        git(self.work, "init", "--quiet")
        Repo.init(str(self.work)).close()
        write_project(self.work, BEFORE)
        git(self.work, "remote", "add", "origin", str(self.origin))
        self.sha = self.push("main", "topic")
        self.set_results(AFTER)
        git(self.trusted, "init", "--quiet")
        Repo.init(str(self.trusted)).close()
        write_project(self.trusted, {})
        write(self.trusted, {".dvc/config": dvc_remote(self.remote)})
        git(self.trusted, "clone", "--quiet", "--branch=main", str(self.origin), "publishing")
        inside(self.trusted)
        for name, value in self.api.variables(install_gh(folder / "bin")).items():
            monkeypatch.setenv(name, value)
        self.api.artifacts = {"42": {"results": self.results}}

    def push(self, *branches: str) -> str:
        """Commit the checkout, and push it as `branches` (default: topic); return the commit."""
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "-m", "work")
        heads = [f"HEAD:refs/heads/{branch}" for branch in branches or ["topic"]]
        git(self.work, "push", "--quiet", "origin", *heads)
        return git(self.work, "rev-parse", "HEAD")

    def set_results(self, outputs: dict) -> None:
        shutil.rmtree(self.results)
        write_results(self.results, outputs)

    def publish(self, sha: str = "", branch: str = "topic", commits: bool = True) -> str:
        """Publish; return what was said."""
        return publish.publish(self.results, sha or self.sha, branch, "main", 42, commits)

    @property
    def head(self) -> str:
        return git(self.origin, "rev-parse", "topic")

    @property
    def pushed(self) -> set[bytes]:
        return {path.read_bytes() for path in self.remote.rglob("*") if path.is_file()}

    def untouched(self) -> bool:
        return self.head == self.sha and not self.pushed
