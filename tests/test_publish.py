"""The publish job against a real bare repository and a real DVC remote, both in folders."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from pipeline import Refused
from pipeline.github import lock, publish, report, results, retrain, storage
from pipeline.github.api import Api

BEFORE = {"models/cnn.pt2": b"old model", "metrics/cnn.json": b'{"accuracy": 0.5}', "metrics/gone.json": b"{}", "reports/cnn.html": b"<p>old</p>"}
AFTER = {"models/cnn.pt2": b"new model", "metrics/cnn.json": b'{"accuracy": 0.9}', "metrics/new.csv": b"epoch\n1\n", "reports/cnn.html": b"<p>new</p>"}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org", "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def write(folder: Path, files: dict[str, bytes]) -> None:
    """The files, and the dvc.lock that records them."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    outs = [{"path": path, "hash": "md5", "md5": hashlib.md5(content).hexdigest(), "size": len(content)} for path, content in files.items()]
    with (folder / "dvc.lock").open("w", encoding="utf-8") as file:
        YAML().dump({"schema": "2.0", "stages": {"train@cnn": {"cmd": "python -m pipeline stage", "outs": outs}}}, file)


class World:
    """A repository with a branch `topic`, the results of a run of its head, a trusted checkout with DVC, and a DVC remote."""

    def __init__(self, folder: Path) -> None:
        self.origin, self.work, self.results, self.remote = (folder / name for name in ("origin.git", "work", "results", "remote"))
        for each in (self.origin, self.work, self.results, self.remote, folder / "trusted"):
            each.mkdir()
        git(self.origin, "init", "--bare", "--quiet")
        git(self.work, "init", "--quiet")
        write(self.work, BEFORE)
        for name, text in {"README.md": "text", "dvc.yaml": "stages: {}", ".gitattributes": "* filter=evil", ".gitignore": "models/\nreports/\n"}.items():
            (self.work / name).write_text(text, encoding="utf-8")
        (self.work / ".dvc").mkdir()
        (self.work / ".dvc" / "config").write_text("[core]\n    remote = evil\n['remote \"evil\"']\n    url = /nonexistent/evil\n", encoding="utf-8")
        git(self.work, "add", ".")
        git(self.work, "commit", "--quiet", "-m", "work")
        git(self.work, "push", "--quiet", str(self.origin), "HEAD:refs/heads/topic")
        self.sha = git(self.work, "rev-parse", "HEAD")
        write(self.results, AFTER)
        Repo.init(str(folder / "trusted"), no_scm=True).close()

    def publish(self, sha: str = "", commits: bool = True) -> str | None:
        configuration = {"core": {"remote": "storage"}, "remote": {"storage": {"url": str(self.remote)}}}
        return publish.publish(self.results, str(self.origin), sha or self.sha, "topic", "42", commits, configuration=configuration)

    @property
    def head(self) -> str:
        return git(self.origin, "rev-parse", "topic")

    @property
    def pushed(self) -> set[bytes]:
        return {path.read_bytes() for path in self.remote.rglob("*") if path.is_file()}

    def untouched(self) -> bool:
        return self.head == self.sha and not self.pushed


@pytest.fixture
def world(tmp_path, monkeypatch) -> World:
    made = World(tmp_path)
    monkeypatch.setattr(publish, "ROOT", tmp_path / "trusted")
    return made


def test_right_results_are_pushed_and_committed_together(world):
    commit = world.publish()
    assert world.head == commit and git(world.origin, "rev-parse", f"{commit}^") == world.sha
    assert set(git(world.origin, "diff", "--name-only", world.sha, commit).split()) == {"dvc.lock", "metrics/cnn.json", "metrics/new.csv", "metrics/gone.json"}
    assert set(git(world.origin, "ls-tree", "--name-only", commit, "metrics/").split()) == {"metrics/cnn.json", "metrics/new.csv"}
    assert git(world.origin, "show", f"{commit}:metrics/cnn.json").encode() == AFTER["metrics/cnn.json"]
    assert git(world.origin, "show", f"{commit}:dvc.lock") == (world.results / "dvc.lock").read_text(encoding="utf-8").strip()
    assert world.pushed == {AFTER["models/cnn.pt2"], AFTER["reports/cnn.html"]}  # what git keeps is not DVC's
    assert git(world.origin, "log", "-1", "--format=%an", commit) == "github-actions[bot]"


def test_its_own_commit_is_never_followed_by_another(world):
    commit = world.publish()
    write(world.results, AFTER | {"models/cnn.pt2": b"another machine's model"})
    assert world.publish(commit) is None and world.head == commit


def test_a_persons_commit_on_top_of_it_is(world):
    git(world.work, "fetch", "--quiet", str(world.origin), world.publish())
    git(world.work, "checkout", "--quiet", "--detach", "FETCH_HEAD")
    git(world.work, "commit", "--quiet", "--amend", "--no-edit", "--allow-empty", "--reset-author")
    git(world.work, "push", "--quiet", "--force", str(world.origin), "HEAD:refs/heads/topic")
    write(world.results, AFTER | {"models/cnn.pt2": b"another machine's model"})
    assert world.publish(world.head) == world.head


def test_nothing_to_do_makes_no_commit(world):
    for path in AFTER.keys() - BEFORE.keys():
        (world.results / path).unlink()
    write(world.results, BEFORE)
    assert world.publish() is None and world.head == world.sha
    assert BEFORE["models/cnn.pt2"] in world.pushed  # pushed all the same: the author may have no write access


def test_a_branch_that_went_on_is_left_alone(world):
    (world.work / "README.md").write_text("more", encoding="utf-8")
    git(world.work, "commit", "--quiet", "-a", "-m", "more")
    git(world.work, "push", "--quiet", str(world.origin), "HEAD:refs/heads/topic")
    newer = world.head
    assert world.publish() is None and world.head == newer


def test_on_main_nothing_is_committed(world):
    with pytest.raises(Refused, match="not those that topic records.*by a pull request"):
        world.publish(commits=False)
    assert world.untouched()
    for path in AFTER.keys() - BEFORE.keys():
        (world.results / path).unlink()
    write(world.results, BEFORE)
    assert world.publish(commits=False) is None and world.head == world.sha and world.pushed


@pytest.mark.parametrize("path", list(AFTER))
def test_a_tampered_output_is_refused(world, path):
    (world.results / path).write_bytes(AFTER[path][:-1] + b"!")
    with pytest.raises(Refused, match=f"{path} does not have the bytes"):
        world.publish()
    assert world.untouched()


def test_an_output_more_or_less_is_refused(world):
    (world.results / "metrics" / "extra.json").write_text("{}")
    with pytest.raises(Refused, match=r"not recorded: \['metrics/extra.json'\]"):
        world.publish()
    (world.results / "metrics" / "extra.json").unlink()
    (world.results / "models" / "cnn.pt2").unlink()
    with pytest.raises(Refused, match=r"missing: \['models/cnn.pt2'\]"):
        world.publish()
    assert world.untouched()


@pytest.mark.parametrize("path", [
    "../outside", "/etc/passwd", "metrics/../README.md", "metrics/../../x", ".github/workflows/x.yml", ".git/config", "README.md", "notebooks/cnn.ipynb",
    "metrics/.hidden", "metrics/a/b", "metrics/", "metrics/a b", "metrics\\x", "metrics/x\n", 7, None,
])
def test_places_outside_of_the_outputs_are_refused(world, path):
    with (world.results / "dvc.lock").open("w", encoding="utf-8") as file:
        YAML().dump({"stages": {"x": {"outs": [{"path": path, "md5": "0" * 32, "size": 0}]}}}, file)
    with pytest.raises(Refused, match="cannot be used as dvc.lock|do not agree"):
        world.publish()
    assert world.untouched()


@pytest.mark.parametrize("text", [
    "", "[]", "stages: [1]", "stages: {x: {outs: 1}}", "a: &a [*a]", "!!python/object/apply:os.system [echo]", "{", "\x00",
    "stages: {x: {outs: [{path: metrics/a, md5: ../../x, size: 1}]}}", "stages: {x: {outs: [{path: data/d, md5: 0.dir, size: 1}]}}",
])
def test_a_dvc_lock_of_another_form_is_refused(world, text):
    (world.results / "dvc.lock").write_text(text, encoding="utf-8")
    with pytest.raises(Refused, match="cannot be used as dvc.lock"):
        world.publish()
    assert world.untouched()


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
@pytest.mark.parametrize("path", ["metrics/cnn.json", "dvc.lock", "metrics"])
def test_links_are_refused(world, tmp_path, path):
    link = world.results / path
    link.rename(tmp_path / "aside")
    link.symlink_to(tmp_path / "aside")
    with pytest.raises(Refused, match="no regular file"):
        world.publish()
    assert world.untouched()


def test_too_large_metrics_are_refused(world):
    write(world.results, AFTER | {"metrics/new.csv": b"x" * (publish.MOST_METRIC + 1)})
    with pytest.raises(Refused, match="too large"):
        world.publish()
    assert world.untouched()


def test_a_remote_that_fails_leaves_no_commit(world):
    world.remote.rmdir()
    world.remote.write_text("a file, no folder")
    with pytest.raises(Refused, match="could not be pushed to the DVC remote"):
        world.publish()
    assert world.head == world.sha


class Recorder(Api):
    """An API that only notes what is asked."""

    def once(self, method, path, body=None):
        asked.append((method, path, body))
        return {"commit": {"sha": "ab" * 20}}


asked: list = []


def test_the_new_commit_gets_its_checks():
    asked.clear()
    publish.start_checks(Recorder("http://x", "owner/name", "token"), "topic")
    assert asked == [("POST", f"/actions/workflows/{name}/dispatches", {"ref": "topic"}) for name in ("tests.yml", "report.yml")]


def test_the_branch_is_what_the_api_says():
    api = Recorder("http://x", "owner/name", "token")

    def pull(ref: str, repository: str = "owner/name") -> dict:
        return {"number": 1, "head": {"ref": ref, "repo": {"full_name": repository}}}

    head = "ab" * 20
    assert publish.branch_of(api, head, "pull_request", "main", pull("topic")) == ("topic", True)
    assert publish.branch_of(api, head, "pull_request", "main", pull("topic", "fork/name")) is None
    assert publish.branch_of(api, head, "pull_request", "main", {"number": 1, "head": {"ref": "topic", "repo": None}}) is None
    assert publish.branch_of(api, head, "workflow_dispatch", "main", None) is None
    assert publish.branch_of(api, head, "push", "main", None) == ("main", False)
    assert publish.branch_of(api, "cd" * 20, "push", "main", None) is None  # main went on
    for name in ("main", "--force", "a b", "+refs", "a:b"):
        with pytest.raises(Refused, match="Nothing is committed"):
            publish.branch_of(api, head, "pull_request", "main", pull(name))


def test_results_are_laid_out_whole(world, monkeypatch, tmp_path):
    monkeypatch.setattr(results.step, "SCRATCH", tmp_path / "scratch")
    (world.work / "params.yaml").write_text("a: 1\n")
    git(world.work, "add", ".")
    git(world.work, "commit", "--quiet", "-m", "parameters")
    write(world.work, AFTER)
    folder = results.lay_out(world.work)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {"dvc.lock", *AFTER}
    assert publish.taken(folder)[1] == lock.here(world.work)
    (world.work / "params.yaml").write_text("a: 2\n")
    with pytest.raises(Refused, match="params.yaml"):
        results.lay_out(world.work)


def test_moved_numbers_are_told(world, monkeypatch, tmp_path):
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert retrain.report(0.002, world.work) == 0 and "every number is as committed, and every output" in summary.read_text(encoding="utf-8")
    (world.work / "metrics" / "cnn.json").write_text('{"accuracy": 0.501}')
    assert retrain.report(0.002, world.work) == 0
    assert retrain.report(0.0001, world.work) == 1
    assert "| `metrics/cnn.json` | accuracy | 0.5 | 0.501 |" in summary.read_text(encoding="utf-8")


def test_the_remote_comes_by_environment_alone():
    assert storage.settings({}) == storage.settings({"REMOTE_URL": "", "REMOTE_USER": "x"}) == {}
    web = storage.settings({"REMOTE_URL": "https://a.example/x", "REMOTE_USER": "u", "REMOTE_PASSWORD": "p"})["remote"]["storage"]
    assert (web["auth"], web["user"], web["password"], web["verify"]) == ("basic", "u", "p", True)
    given = {"REMOTE_URL": "s3://dvc", "REMOTE_ENDPOINT": "https://a.example", "REMOTE_USER": "u", "REMOTE_PASSWORD": "p"}
    bucket = storage.settings(given)["remote"]["storage"]
    assert (bucket["endpointurl"], bucket["access_key_id"], bucket["secret_access_key"]) == ("https://a.example", "u", "p")
    with pytest.raises(Refused, match="http, https and s3"):
        storage.settings({"REMOTE_URL": "/folder", "REMOTE_USER": "u"})


def test_pulls_what_the_remote_has(world, monkeypatch, tmp_path):
    """A fresh checkout of the published commit gets its outputs from the remote; without a remote it says so and goes on."""
    commit = world.publish()
    checkout = tmp_path / "checkout"
    git(tmp_path, "clone", "--quiet", "--branch=topic", str(world.origin), str(checkout))
    (checkout / ".dvc" / "config").write_text("", encoding="utf-8")
    outs = "".join(f"      - {path}\n" for path in AFTER if not path.startswith("metrics/"))
    metrics = "".join(f"      - {path}: {{cache: false}}\n" for path in AFTER if path.startswith("metrics/"))
    (checkout / "dvc.yaml").write_text(f"stages:\n  train:\n    foreach: [cnn]\n    do:\n      cmd: python -m pipeline stage\n      outs:\n{outs}{metrics}")
    for module in (storage, lock):
        monkeypatch.setattr(module, "ROOT", checkout)
    assert "No DVC remote is configured" in storage.pull("")
    monkeypatch.setenv("REMOTE_URL", str(world.remote))
    assert "2 files fetched" in storage.pull(commit)
    assert (checkout / "models" / "cnn.pt2").read_bytes() == AFTER["models/cnn.pt2"]
    assert "remote" not in (checkout / ".dvc" / "config").read_text(encoding="utf-8")
    monkeypatch.setenv("REMOTE_URL", "http://127.0.0.1:9/nothing")
    (checkout / "models" / "cnn.pt2").unlink()
    assert storage.pull("")  # a sentence, not an error


def test_how_the_tests_ended():
    def ended(*runs: tuple[str, str, str | None]) -> str:
        class Checks(Api):
            def once(self, method, path, body=None):
                return {"check_runs": [{"name": name, "status": status, "conclusion": conclusion} for name, status, conclusion in runs]}

        return report.tests(Checks("http://x", "owner/name", "token"), "ab" * 20, 0)

    done = ("test (macos-latest)", "completed", "success")
    assert ended(("test (ubuntu-latest)", "completed", "success"), done, ("lint", "completed", "failure")) == "passed"
    assert ended(("test (ubuntu-latest)", "completed", "failure"), done) == "failed"
    assert ended(("test (ubuntu-latest)", "completed", "cancelled"), done) == "cancelled"
    assert ended(("test (ubuntu-latest)", "in_progress", None), done) == ended() == ""
