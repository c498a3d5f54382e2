"""Results of a run, which anybody's code made: what is refused, and how a person takes them."""

import json
import os
import subprocess

import pytest

from nbproof.notebook.errors import UserError
from nbproof.review import artifact, ci

from .results_world import (
    AFTER,
    KEPT,
    dvc_remote,
    files_of,
    git,
    lock,
    write,
    write_project,
    write_results,
)

NOT_WINDOWS = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


@pytest.fixture
def uploaded(tmp_path):
    """The results of a run."""
    write_results(tmp_path / "results", AFTER)
    return tmp_path / "results"


@pytest.mark.parametrize(("path", "words"), [
    ("git/metrics/cnn.json", "the bytes"), ("dvc/models/cnn/data/weights", "the bytes"),
    ("dvc/models/cnn/extra", "the bytes"), ("dvc/metrics/cnn.json", "twice"),
    ("git/metrics/extra.json", "no regular"), ("dvc/models/cnn/.hidden", "no regular"),
    ("elsewhere/metrics/cnn.json", "no regular"), ("README.md", "no regular")])
def test_a_file_that_is_not_as_recorded(uploaded, path, words):
    write(uploaded, {path: b"{}"})
    with pytest.raises(UserError, match=words):
        artifact.checked(uploaded)


def test_a_file_too_few(uploaded):
    (uploaded / "dvc" / "models" / "mlp").unlink()
    with pytest.raises(UserError, match=r"models/mlp is recorded in dvc.lock and not among"):
        artifact.checked(uploaded)
    (uploaded / "dvc.lock").unlink()
    with pytest.raises(UserError, match=r"hold no dvc.lock"):
        artifact.checked(uploaded)


PATHS = ["../outside", "/etc/passwd", "metrics/../README.md", ".git/config", "README.md",
         ".github/workflows/x.yml", "notebooks/cnn.ipynb", "metrics/.hidden", "models/.git/config",
         "metrics/", "metrics/a b", "metrics\\x", "metrics/x\n", 7, None, "metrics/" + "a/" * 250]


@pytest.mark.parametrize("text", [
    "[]", "stages: [1]", "stages: {x: {outs: 1}}", "a: &a [*a]", "{", "\x00", "#" * 1_000_001,
    "!!python/object/apply:os.system [echo]",
    "stages: {x: {outs: [{path: metrics/a, md5: ../../x, size: 1}]}}",
    "stages: {x: {outs: [{path: data/d, md5: 0.dir}]}}",
    *(json.dumps({"stages": {"x": {"outs": [{"path": path, "md5": "0" * 32}]}}})
      for path in PATHS)])
def test_a_dvc_lock_of_another_form(text):
    with pytest.raises(UserError, match="cannot be used as dvc.lock"):
        artifact.recorded(text, "this")


@NOT_WINDOWS
@pytest.mark.parametrize("path", ["git/metrics/cnn.json", "dvc.lock", "git", "dvc/models/cnn",
                                  "dvc/models/cnn/MLmodel"])
def test_a_link_among_the_results(uploaded, tmp_path, path):
    link = uploaded / path
    link.rename(tmp_path / "aside")
    link.symlink_to(tmp_path / "aside")
    with pytest.raises(UserError, match="no regular file|no dvc.lock"):
        artifact.checked(uploaded)


def test_a_file_that_is_too_large_for_git(uploaded):
    with (uploaded / "git/metrics/cnn.json").open("ab") as file:
        file.truncate(1_000_001)
    with pytest.raises(UserError, match="too large for git: it has 1,000,001 bytes"):
        artifact.checked(uploaded)


def test_what_is_laid_out_is_what_is_checked(world):
    for path in ("reports/small/a.txt", "metrics/gone.json"):
        (world.work / path).unlink()
    write_project(world.work, AFTER)
    world.inside(world.work)
    ci.results()
    results = artifact.checked(world.work / "scratch" / "results")
    assert set(results.kept) == {"dvc.lock"} | {path for path in files_of(AFTER)
                                                if path.startswith(KEPT)}
    assert {info.value for _, info in results.objects} == {
        value for path, value in results.outputs.items() if not path.startswith(KEPT)}
    (world.work / "models" / "mlp").unlink()
    with pytest.raises(UserError, match=r"models/mlp is recorded in dvc.lock and not"):
        ci.results()


def test_a_maintainer_takes_the_results_of_a_run(world):
    world.inside(world.work)
    ci.take(42)
    assert {path: (world.work / path).read_bytes() for path in files_of(AFTER)} == files_of(AFTER)
    assert (world.work / "dvc.lock").read_text() == lock(AFTER)
    assert not (world.work / "reports/small/a.txt").exists()
    with pytest.raises(UserError, match="gh run download 43"):
        ci.take(43)


@NOT_WINDOWS
@pytest.mark.parametrize("link", ["metrics/cnn.json", "metrics", "dvc.lock", "models/cnn",
                                  "models"])
def test_a_link_of_the_branch_is_not_written_through(world, link):
    """The branch and the results are the attacker's, so every hash is right: the link points to
    .git, where `config` names a program that git starts."""
    evil = b"[core]\n    fsmonitor = touch /tmp/evil\n"
    outputs = {"metrics/cnn.json": evil, "metrics/config": evil, "models/cnn": {"config": evil},
               "models/config": evil}
    world.set_results(outputs)
    path = world.work / link
    subprocess.run(["rm", "-r", str(path)], check=True)
    inner = ".git" if link in ("metrics", "models", "models/cnn") else ".git/config"
    path.symlink_to(os.path.relpath(world.work / inner, path.parent))
    git(world.work, "add", "--force", link)
    git(world.work, "commit", "--quiet", "-m", "evil")
    world.inside(world.work)
    before = (world.work / ".git" / "config").read_bytes()
    with pytest.raises(UserError, match=f"^{link} is a symbolic link"):
        ci.take(42)
    assert (world.work / ".git" / "config").read_bytes() == before


def test_pull_brings_what_the_remote_has(world, capsys, monkeypatch, tmp_path):
    world.publish()
    checkout = tmp_path / "checkout"
    git(tmp_path, "clone", "--quiet", "--branch=topic", str(world.origin), str(checkout))
    write_project(checkout, AFTER)
    for path in ("models/cnn/data/weights", "models/mlp", "reports/export@cnn.ipynb"):
        (checkout / path).unlink()
    write(checkout, {".dvc/config": (world.trusted / ".dvc/config").read_bytes()})
    world.inside(checkout)
    ci.pull(base=world.sha)
    assert "files fetched" in capsys.readouterr().out
    for path in ("models/cnn/data/weights", "models/mlp", "reports/export@cnn.ipynb"):
        assert (checkout / path).read_bytes() == files_of(AFTER)[path]
    for remote, words in (("", "No DVC remote"), ("http://127.0.0.1:9/x", "The DVC remote http")):
        write(checkout, {".dvc/config": dvc_remote(remote) if remote else ""})
        ci.pull(base="")
        assert words in capsys.readouterr().out
        assert ("http" in (checkout / "scratch/pull/why").read_text()) == bool(remote)


@pytest.mark.parametrize(("url", "expected"), [
    ("s3://dvc", {"access_key_id": "u", "secret_access_key": "p"}),
    ("https://a.example/x", {"auth": "basic", "user": "u", "password": "p"})])
def test_the_remotes_account_comes_by_variables_alone(world, monkeypatch, url, expected):
    write(world.trusted, {".dvc/config": dvc_remote(url)})
    monkeypatch.setenv("REMOTE_USER", "u")
    monkeypatch.setenv("REMOTE_PASSWORD", "p")
    monkeypatch.setattr(artifact, "data_problem", lambda repo, _: None)
    with artifact._remote() as repo:
        settings = repo.config["remote"]["r"]
    assert expected.items() <= settings.items()
