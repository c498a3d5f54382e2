"""The steps that handle results, on a tiny project: a DVC remote in a folder, GitHub's API before a bare repository."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML
from typer.testing import CliRunner

from nbproof.github import command, publish, results
from nbproof.github.api import Answer, Api
from nbproof.notebook import files
from nbproof.notebook.errors import UserError
from nbproof.pipeline import config

# Outputs by place; a dict is a folder. metrics/ and reports/small are kept by git.
BEFORE = {
    "models/cnn": {"MLmodel": b"old", "data/weights": b"old weights"},
    "models/mlp": b"the same",
    "reports/cnn.html": b"<p>old</p>",
    "metrics/cnn.json": b'{"rmse": 0.5, "n": NaN}',
    "metrics/gone.json": b"{}",
    "reports/small": {"a.txt": b"a", "b.txt": b"b"},
}
AFTER = {
    "models/cnn": {"MLmodel": b"new", "data/weights": b"new weights"},
    "models/mlp": b"the same",
    "reports/cnn.html": b"<p>new</p>",
    "metrics/cnn.json": b'{"rmse": 0.4, "n": NaN}',
    "metrics/new.csv": b"epoch\n1\n",
    "reports/small": {"b.txt": b"b2", "c/d.txt": b"d"},
}
KEPT = ("metrics/", "reports/small")


@pytest.fixture(autouse=True)
def in_the_small_environment(monkeypatch):
    """The job installs requirements/review.txt alone, which has none of these."""
    for name in ("torch", "mlflow", "papermill", "nbconvert", "jupyterlab", "matplotlib", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)


def git(folder: Path, *arguments: str, data: bytes = b"", **environment: str) -> str:
    identity = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *identity, *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        input=data,
        env=os.environ | environment,
    )
    return done.stdout.decode().strip()


def files_of(outputs: dict) -> dict[str, bytes]:
    """Each file by its place."""
    return {
        f"{path}/{name}" if name else path: data
        for path, content in outputs.items()
        for name, data in (content.items() if isinstance(content, dict) else [("", content)])
    }


def md5(content: bytes | dict) -> str:
    """The sum that dvc.lock has for a file, or for a folder: that of DVC's list of its files."""
    if isinstance(content, bytes):
        return hashlib.md5(content).hexdigest()
    listed = [{"md5": md5(data), "relpath": name} for name, data in sorted(content.items())]
    return md5(json.dumps(listed).encode()) + ".dir"


def lock(outputs: dict) -> str:
    outs = [{"path": path, "hash": "md5", "md5": md5(content), "size": 1} for path, content in outputs.items()]
    return json.dumps(
        {"schema": "2.0", "stages": {"train@cnn": {"cmd": "nbproof stage", "outs": outs}}}
    )  # JSON is YAML


def write(folder: Path, contents: dict[str, bytes]) -> None:
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def write_project(folder: Path, outputs: dict, **more: str) -> None:
    """A project with one stage that has these outputs, and the dvc.lock that records them."""
    outs = [
        {path: {"cache": False}} if path.startswith(KEPT) else path for path in outputs if not path.endswith(".json")
    ]
    metrics = [{path: {"cache": False}} for path in outputs if path.endswith(".json")]
    stages = {"train": {"foreach": ["cnn"], "do": {"cmd": "true", "outs": outs, "metrics": metrics}}}
    texts = {
        "project.yaml": "name: tiny\nmetric: {key: rmse, goal: min}\ntolerance: {absolute: 0.01}\n",
        "README.md": "text",
        "dvc.yaml": json.dumps({"stages": stages}),
        "dvc.lock": lock(outputs),
        "params.yaml": "{}",
        ".gitattributes": "* filter=evil",
        ".gitignore": "/models\n/reports/cnn.html\n/scratch\n",
    } | more
    write(folder, {path: text.encode() for path, text in texts.items()} | files_of(outputs))


def write_results(folder: Path, outputs: dict) -> None:
    """What the step `results` lays out."""
    write(folder, {"dvc.lock": lock(outputs).encode()})
    write(
        folder,
        {f"{'git' if path.startswith(KEPT) else 'dvc'}/{path}": data for path, data in files_of(outputs).items()},
    )


class Github(Api):
    """The part of GitHub's API that `publish` uses, before the bare repository `folder`; notes what is dispatched."""

    def __init__(self, folder: Path) -> None:
        super().__init__("http://x", "owner/name", "token")
        self.folder, self.pulls = folder, []

    def call(self, method, path, body=None, retries=4):
        what, _, name = path.partition("/git/")[2].partition("?")[0].partition("/")
        if path.startswith("/pulls"):
            return self.pulls
        if path.startswith("/branches/"):
            return {"commit": {"sha": git(self.folder, "rev-parse", path.removeprefix("/branches/"))}}
        return getattr(self, f"{method}_{what}".lower())(name, body)

    def get_commits(self, sha, _):
        tree, committer, message = git(self.folder, "show", "-s", "--format=%T%n%cn%n%B", sha).split("\n", 2)
        return {"sha": sha, "tree": {"sha": tree}, "committer": {"name": committer}, "message": message}

    def get_trees(self, sha, _):
        listed = [line.partition("\t") for line in git(self.folder, "ls-tree", "-r", "-t", sha).splitlines()]
        return {
            "truncated": False,
            "tree": [{"path": path, "type": entry.split()[1], "sha": entry.split()[2]} for entry, _, path in listed],
        }

    def get_blobs(self, sha, _):
        content = subprocess.check_output(["git", "cat-file", "blob", sha], cwd=self.folder)
        return {"content": base64.encodebytes(content).decode()}  # in lines, as GitHub does

    def post_blobs(self, _, body):
        assert body["encoding"] == "base64"
        return {"sha": git(self.folder, "hash-object", "-w", "--stdin", data=base64.b64decode(body["content"]))}

    def post_trees(self, _, body):
        index = {"GIT_INDEX_FILE": str(self.folder / "index.new")}
        git(self.folder, "read-tree", body["base_tree"], **index)
        known = git(self.folder, "ls-files", **index).splitlines()
        for each in body["tree"]:
            if each["sha"] is None and each["path"] not in known:
                raise Answer(422, "GitRPC::BadObjectState")
            entry = f"{each['mode']} {each['sha']}" if each["sha"] else f"0 {'0' * 40}"
            git(self.folder, "update-index", "--index-info", data=f"{entry}\t{each['path']}\n".encode(), **index)
        return {"sha": git(self.folder, "write-tree", **index)}

    def post_commits(self, _, body):
        who = {
            f"GIT_{role.upper()}_{key.upper()}": body[role][key]
            for role in ("author", "committer")
            for key in body[role]
        }
        arguments = ["commit-tree", body["tree"], "-p", *body["parents"], "-m", body["message"]]
        return {"sha": git(self.folder, *arguments, **who)}

    def patch_refs(self, name, body):
        assert body["force"] is False
        try:
            git(self.folder, "merge-base", "--is-ancestor", name, body["sha"])
        except subprocess.CalledProcessError:
            raise Answer(422, "Update is not a fast forward") from None
        git(self.folder, "update-ref", f"refs/{name}", body["sha"])


class World:
    """A repository with a branch `topic`, the results of a run of its head, a trusted checkout and a DVC remote."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.monkeypatch = monkeypatch
        self.origin, self.work, self.results, self.remote, self.trusted = (
            folder / name for name in ("origin.git", "work", "results", "remote", "trusted")
        )
        for each in (self.origin, self.work, self.results, self.remote, self.trusted):
            each.mkdir()
        git(self.origin, "init", "--bare", "--quiet")
        git(self.work, "init", "--quiet")
        evil = "[core]\n    remote = evil\n['remote \"evil\"']\n    url = /nonexistent/evil\n"
        write_project(self.work, BEFORE, **{".dvc/config": evil})
        git(self.work, "add", ".")
        git(self.work, "commit", "--quiet", "-m", "work")
        git(self.work, "push", "--quiet", str(self.origin), "HEAD:refs/heads/topic")
        self.sha = git(self.work, "rev-parse", "HEAD")
        write_results(self.results, AFTER)
        Repo.init(str(self.trusted), no_scm=True).close()
        write_project(self.trusted, {})
        self.api = Github(self.origin)
        self.go(self.trusted)

    def go(self, folder: Path) -> None:
        """Work in the project at `folder`."""
        self.monkeypatch.chdir(folder)
        files.root.cache_clear()
        config.load.cache_clear()

    def publish(self, sha: str = "", commits: bool = True, app: bool = True) -> str | None:
        """The new commit, if one was made."""
        remote, before = results.remote({"REMOTE_URL": str(self.remote)}), self.head
        self.said = publish.publish(self.api, self.results, sha or self.sha, "topic", commits, 42, remote,
                                    self.api if app else None)
        return self.head if self.head != before else None

    @property
    def head(self) -> str:
        return git(self.origin, "rev-parse", "topic")

    @property
    def pushed(self) -> set[bytes]:
        return {path.read_bytes() for path in self.remote.rglob("*") if path.is_file()}

    def untouched(self) -> bool:
        return self.head == self.sha and not self.pushed

    def empty_results(self) -> None:
        for path in sorted(self.results.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


@pytest.fixture
def world(tmp_path, monkeypatch):
    yield World(tmp_path, monkeypatch)
    files.root.cache_clear()
    config.load.cache_clear()


def test_right_results_are_pushed_and_committed_together(world):
    commit = world.publish()
    assert world.head == commit and git(world.origin, "rev-parse", f"{commit}^") == world.sha
    assert set(git(world.origin, "diff", "--name-status", world.sha, commit).replace("\t", " ").splitlines()) == {
        "M dvc.lock",
        "M metrics/cnn.json",
        "A metrics/new.csv",
        "D metrics/gone.json",
        "D reports/small/a.txt",
        "M reports/small/b.txt",
        "A reports/small/c/d.txt",
    }
    assert git(world.origin, "show", f"{commit}:metrics/cnn.json").encode() == AFTER["metrics/cnn.json"]
    assert git(world.origin, "show", f"{commit}:dvc.lock") == (world.results / "dvc.lock").read_text(encoding="utf-8")
    assert {b"new", b"new weights", b"the same", b"<p>new</p>"} < world.pushed
    assert len(world.pushed) == 5  # and the folder's list; what git keeps is not DVC's
    assert git(world.origin, "log", "-1", "--format=%an", commit) == "github-actions[bot]"


def test_its_own_commit_is_never_followed_by_another(world):
    commit = world.publish()
    write_results(world.results, AFTER | {"models/mlp": b"another machine's model"})
    assert world.publish(commit) is None and world.head == commit


def test_a_persons_commit_with_the_same_message_is(world):
    git(world.work, "fetch", "--quiet", str(world.origin), world.publish())
    git(world.work, "checkout", "--quiet", "--detach", "--force", "FETCH_HEAD")
    git(world.work, "commit", "--quiet", "--amend", "--no-edit", "--allow-empty", "--reset-author")
    git(world.work, "push", "--quiet", "--force", str(world.origin), "HEAD:refs/heads/topic")
    write_results(world.results, AFTER | {"models/mlp": b"another machine's model"})
    assert world.publish(world.head) == world.head


def test_nothing_to_do_makes_no_commit(world):
    world.empty_results()
    write_results(world.results, BEFORE)
    assert world.publish() is None and world.head == world.sha
    assert b"old weights" in world.pushed  # pushed all the same: the author may have no write access


def test_a_branch_with_newer_commits_is_left_alone(world):
    (world.work / "README.md").write_text("more", encoding="utf-8")
    git(world.work, "commit", "--quiet", "-a", "-m", "more")
    git(world.work, "push", "--quiet", str(world.origin), "HEAD:refs/heads/topic")
    newer = world.head
    assert world.publish() is None and world.head == newer


def test_on_main_nothing_is_committed(world):
    with pytest.raises(UserError, match="not those that topic records.*by a pull request"):
        world.publish(commits=False)
    assert world.untouched()
    world.empty_results()
    write_results(world.results, BEFORE)
    assert world.publish(commits=False) is None and world.head == world.sha and world.pushed


@pytest.mark.parametrize(
    "path", ["git/metrics/cnn.json", "dvc/models/mlp", "dvc/models/cnn/data/weights", "git/reports/small/b.txt"]
)
def test_a_tampered_output_is_refused(world, path):
    place = world.results / path
    place.write_bytes(place.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match="does not have the bytes"):
        world.publish()
    assert world.untouched()


def test_an_output_more_less_or_twice_is_refused(world):
    for extra, words in (
        ("git/metrics/extra.json", "not recorded"),
        ("dvc/models/cnn/extra", "does not have the bytes"),
        ("dvc/metrics/cnn.json", "twice"),
    ):
        write(world.results, {extra: b"{}"})
        with pytest.raises(UserError, match=words):
            world.publish()
        (world.results / extra).unlink()
    (world.results / "dvc" / "models" / "mlp").unlink()
    with pytest.raises(UserError, match="models/mlp is recorded in dvc.lock and not among"):
        world.publish()
    assert world.untouched()


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "/etc/passwd",
        "metrics/../README.md",
        "metrics/../../x",
        ".github/workflows/x.yml",
        ".git/config",
        "README.md",
        "notebooks/cnn.ipynb",
        "metrics/.hidden",
        "models/a/.git/config",
        "metrics/",
        "metrics/a b",
        "metrics\\x",
        "metrics/x\n",
        7,
        None,
        "metrics/" + "a/" * 250 + "a",
    ],
)
def test_places_outside_of_the_outputs_are_refused(world, path):
    with (world.results / "dvc.lock").open("w", encoding="utf-8") as file:
        YAML().dump({"stages": {"x": {"outs": [{"path": path, "md5": "0" * 32, "size": 0}]}}}, file)
    with pytest.raises(UserError, match="cannot be used as dvc.lock"):
        world.publish()
    assert world.untouched()


@pytest.mark.parametrize("name", ["dvc/models/cnn/.hidden", "elsewhere/metrics/cnn.json", "README.md", "git/README.md"])
def test_files_at_other_places_are_refused(world, name):
    write(world.results, {name: b"x"})
    with pytest.raises(UserError, match="no regular file with the place and name of an output"):
        world.publish()
    assert world.untouched()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "stages: [1]",
        "stages: {x: {outs: 1}}",
        "a: &a [*a]",
        "!!python/object/apply:os.system [echo]",
        "{",
        "\x00",
        "stages: {x: {outs: [{path: metrics/a, md5: ../../x, size: 1}]}}",
        "stages: {x: {outs: [{path: data/d, md5: 0.dir}]}}",
        f"stages: {{x: {{outs: [{{path: data/d, md5: {'0' * 32}}}, {{path: data/d, md5: {'1' * 32}}}]}}}}",
    ],
)
def test_a_dvc_lock_of_another_form_is_refused(world, text):
    (world.results / "dvc.lock").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="cannot be used as dvc.lock"):
        world.publish()
    assert world.untouched()


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
@pytest.mark.parametrize(
    "path", ["git/metrics/cnn.json", "dvc.lock", "git", "dvc/models/cnn", "dvc/models/cnn/MLmodel"]
)
def test_links_are_refused(world, tmp_path, path):
    link = world.results / path
    link.rename(tmp_path / "aside")
    link.symlink_to(tmp_path / "aside")
    with pytest.raises(UserError, match="no regular file"):
        world.publish()
    assert world.untouched()


@pytest.mark.parametrize("name", ["MOST_LOCK", "MOST_KEPT", "MOST_ALL"])
def test_too_large_results_are_refused(world, monkeypatch, name):
    monkeypatch.setattr(results, name, 20)
    with pytest.raises(UserError, match="too large"):
        world.publish()
    assert world.untouched()


def test_a_remote_that_fails_leaves_no_commit(world):
    world.remote.rmdir()
    world.remote.write_text("a file, no folder")
    with pytest.raises(UserError, match="The DVC remote"):
        world.publish()
    assert world.head == world.sha


def pull(ref: str, sha: str, repository: str | None = "owner/name") -> dict:
    return {"number": 1, "head": {"ref": ref, "sha": sha, "repo": repository and {"full_name": repository}}}


def test_without_an_app_nothing_is_committed(world):
    assert world.publish(app=False) is None and world.pushed and "`nbproof github take 42`" in world.said


def test_a_rule_of_the_branch_is_no_newer_commit(world, monkeypatch):
    def refused(name, body):
        raise Answer(422, "Repository rule violations found: commits must have verified signatures")

    monkeypatch.setattr(world.api, "patch_refs", refused)
    with pytest.raises(UserError, match="verified signatures"):
        world.publish()


def test_the_step_publishes(world, monkeypatch):
    monkeypatch.setattr("nbproof.github.api.Api", lambda **_: world.api)
    monkeypatch.setenv("APP_TOKEN", "app")
    for name, value in {
        "HEAD_SHA": world.sha,
        "RUN_ID": "42",
        "EVENT": "pull_request",
        "REMOTE_URL": str(world.remote),
    }.items():
        monkeypatch.setenv(name, value)
    arguments = ["publish", "--results", str(world.results)]
    done = CliRunner().invoke(command.app, arguments)
    assert done.exit_code == 0 and "no longer the head" in done.output and world.untouched()
    world.api.pulls = [pull("topic", world.sha)]
    done = CliRunner().invoke(command.app, arguments)
    assert done.exit_code == 0, done.output
    assert world.head != world.sha and "holds dvc.lock" in done.output


def test_the_branch_is_what_the_api_says(world):
    def branch(*pulls: dict, event: str = "pull_request", default: str = "main") -> tuple | None:
        world.api.pulls = list(pulls)
        return publish.branch_of(world.api, world.sha, event, default)

    assert branch(pull("topic", world.sha)) == ("topic", True)
    assert branch(pull("topic", world.sha, "fork/name")) is None
    assert branch(pull("topic", world.sha, None)) is None
    assert branch(pull("topic", "ab" * 20)) is None
    assert branch(event="workflow_dispatch") is None
    assert branch(event="push", default="topic") == ("topic", False)
    world.sha = "cd" * 20
    assert branch(event="push", default="topic") is None  # it has newer commits
    for name in ("main", "--force", "a b", "+refs", "a:b"):
        with pytest.raises(UserError, match="Nothing is committed"):
            branch(pull(name, world.sha))


def test_results_are_laid_out_as_they_are_published(world):
    (world.work / "reports" / "small" / "a.txt").unlink()
    write_project(world.work, AFTER, **{".dvc/config": ""})
    world.go(world.work)
    done = CliRunner().invoke(command.app, ["results"])
    assert done.exit_code == 0, done.exception
    world.results = world.work / "scratch" / "results"
    kept = results.taken(world.results)[2]
    assert set(kept) == {path for path in files_of(AFTER) if path.startswith(KEPT)}
    world.go(world.trusted)
    assert world.publish() == world.head
    world.go(world.work)
    (world.work / "models" / "mlp").unlink()
    assert "models/mlp is recorded in dvc.lock and not" in str(CliRunner().invoke(command.app, ["results"]).exception)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for gh is a script of a POSIX system")
def test_a_maintainer_takes_the_results_of_a_run(world, monkeypatch, tmp_path):
    world.empty_results()
    new = BEFORE | {"models/mlp": b"another", "metrics/cnn.json": b"{}", "models/cnn": {"MLmodel": b"other"}}
    write_results(world.results, new)
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text(f'#!/bin/sh\n[ "$1 $2 $3 $4 $5 $6" = "run download 42 --name results --dir" ] && '
                  f'cp -r {world.results}/. "$7"\n')
    gh.chmod(0o755)
    write(world.work, {".dvc/config": b""})
    world.go(world.work)
    monkeypatch.setenv("PATH", f"{gh.parent}{os.pathsep}{os.environ['PATH']}")
    done = CliRunner().invoke(command.app, ["take", "42"])
    assert done.exit_code == 0, done.exception
    assert {path: (world.work / path).read_bytes() for path in files_of(new)} == files_of(new)
    assert (world.work / "dvc.lock").read_text() == lock(new) and not (world.work / "models/cnn/data").exists()
    assert "gh could not bring" in str(CliRunner().invoke(command.app, ["take", "43"]).exception)
    (world.results / "dvc" / "models" / "mlp").write_bytes(b"tampered")
    assert "does not have the bytes" in str(CliRunner().invoke(command.app, ["take", "42"]).exception)


def test_moved_numbers_are_told(world, monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    write(world.work, {".dvc/config": b""})
    world.go(world.work)

    def retrain(metrics: str) -> tuple[int, str]:
        (tmp_path / "summary.md").unlink(missing_ok=True)
        (world.work / "metrics" / "cnn.json").write_text(metrics)
        done = CliRunner().invoke(command.app, ["retrain"])
        return done.exit_code, (tmp_path / "summary.md").read_text(encoding="utf-8")

    code, text = retrain('{"rmse": 0.5, "n": NaN}')
    assert code == 0 and "0 numbers moved" in text and "Every output is the same" in text and "|" not in text
    code, text = retrain('{"rmse": 0.505, "n": NaN}')
    assert code == 0 and "| `metrics/cnn.json` | rmse | 0.5 | 0.505 |" in text and ": none." in text
    (world.work / "project.yaml").write_text("name: tiny\nmetric: {key: other, goal: min}\n")
    config.load.cache_clear()
    assert retrain('{"rmse": 0.6, "n": NaN}')[0] == 0  # the tolerance is that of the metric that counts
    write_project(world.work, BEFORE)
    write(world.work, {".dvc/config": b""})
    config.load.cache_clear()
    for moved, name in (
        ('{"rmse": 0.6, "n": NaN}', "rmse"),
        ('{"rmse": NaN, "n": NaN}', "rmse"),
        ('{"rmse": 0.5, "n": 1}', "n"),
        ('{"n": NaN}', "rmse"),
        ('{"rmse": 0.5, "n": NaN, "new": 1}', "new"),
        ("{", "rmse"),
    ):
        code, text = retrain(moved)
        assert code == 1 and f"metrics/cnn.json {name}" in text, moved
    (world.work / "dvc.lock").write_text(lock(AFTER), encoding="utf-8")
    assert "Not every output is the same" in retrain('{"rmse": 0.5, "n": NaN}')[1]


def test_the_remote_comes_by_environment_alone():
    assert results.remote({}) == results.remote({"REMOTE_URL": "", "REMOTE_USER": "x"}) == {}
    given = {"REMOTE_URL": "https://a.example/x", "REMOTE_USER": "u", "REMOTE_PASSWORD": "p"}
    web = results.remote(given)["remote"]["storage"]
    assert (web["auth"], web["user"], web["password"], web["verify"]) == ("basic", "u", "p", True)
    bucket = results.remote(given | {"REMOTE_URL": "s3://dvc", "REMOTE_ENDPOINT": "https://a.example"})["remote"][
        "storage"
    ]
    assert (bucket["endpointurl"], bucket["access_key_id"], bucket["secret_access_key"]) == (
        "https://a.example",
        "u",
        "p",
    )
    with pytest.raises(UserError, match="http, https or s3"):
        results.remote({"REMOTE_URL": "/folder", "REMOTE_USER": "u"})


def test_pulls_what_the_remote_has(world, monkeypatch, tmp_path):
    """A checkout of the published commit gets its outputs from the remote; without a remote it says so and goes on."""
    commit = world.publish()
    checkout = tmp_path / "checkout"
    git(tmp_path, "clone", "--quiet", "--branch=topic", str(world.origin), str(checkout))
    write_project(checkout, {})  # its own files, DVC's configuration without the evil remote
    write(checkout, {".dvc/config": b"", "dvc.lock": lock(AFTER).encode()})
    stage = {"outs": [path for path in AFTER if not path.startswith(KEPT)], "cmd": "true"}
    write(checkout, {"dvc.yaml": json.dumps({"stages": {"train": {"foreach": ["cnn"], "do": stage}}}).encode()})
    world.go(checkout)

    def pulled() -> str:
        done = CliRunner().invoke(command.app, ["pull", "--base", commit])
        assert done.exit_code == 0, done.exception
        return done.output

    assert "No DVC remote is configured" in pulled()
    monkeypatch.setenv("REMOTE_URL", str(world.remote))
    assert "files fetched" in pulled()
    for path in ("models/cnn/data/weights", "models/mlp", "reports/cnn.html"):
        assert (checkout / path).read_bytes() == files_of(AFTER)[path]
    assert (checkout / ".dvc" / "config").read_text(encoding="utf-8") == ""
    monkeypatch.setenv("REMOTE_URL", "http://127.0.0.1:9/nothing")
    (checkout / "models" / "mlp").unlink()
    assert pulled()  # a sentence, not an error


def test_how_the_tests_ended():
    def ended(*runs: tuple[str, str | None]) -> str | None:
        checks = [{"name": name, "conclusion": conclusion} for name, conclusion in runs]
        return command.tests_ended(SimpleNamespace(pages=lambda *_: iter(checks)), "ab" * 20, 0)

    done = ("test (macos-latest)", "success")
    assert ended(("test (ubuntu-latest)", "success"), done, ("lint", "failure")) == "passed"
    assert ended(("test (ubuntu-latest)", "failure"), done) == "failed"
    assert ended(("test (ubuntu-latest)", "cancelled"), done) == "cancelled"
    assert ended(("test (ubuntu-latest)", None), done) is ended() is None
