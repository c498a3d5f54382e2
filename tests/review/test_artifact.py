"""Results of a run, which anybody's code made: what is refused, and how a person takes them."""

import json
import os
import shutil
from pathlib import Path

import pytest

from nbproof.notebook.errors import UserError
from nbproof.review import artifact, ci

from .results_world import KEPT, git, set_remote

NOT_WINDOWS = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


def link(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


def write(content: str):
    return lambda path: path.write_text(content)


@pytest.mark.parametrize(("path", "change", "words"), [
    ("git/metrics/oak.json", write("{}"), "the bytes"),
    ("dvc/models/oak/weights.txt", write("{}"), "the bytes"),
    ("dvc/models/oak/extra", write("{}"), "the bytes"),
    ("dvc/models/oak/.hidden", write("{}"), "no regular"), ("README.md", write(""), "no regular"),
    ("git/metrics/oak.json", write("x" * 1_000_001), "too large for git: it has 1,000,001 bytes"),
    ("dvc/models/oak.csv", Path.unlink, r"models/oak.csv is recorded in dvc.lock and not among"),
    ("dvc.lock", Path.unlink, "hold no dvc.lock"), ("dvc.lock", write("["), "dvc.lock of the run"),
    *(pytest.param(path, link, "no regular", marks=NOT_WINDOWS) for path in (
        "git/metrics/oak.json", "dvc.lock", "git", "dvc/models/oak"))])
def test_what_is_not_as_recorded_is_refused(world, path, change, words):
    change(world.results / path)
    with pytest.raises(UserError, match=words):
        artifact.checked(world.results)


PATHS = ["../outside", "/etc/passwd", "metrics/../README.md", ".git/config", "README.md",
         ".github/workflows/x.yml", "notebooks/cnn.ipynb", "metrics/.hidden", "models/.git/config",
         "metrics/", "metrics/a b", "metrics\\x", "metrics/x\n", 7, None, "metrics/" + "a/" * 250]


@pytest.mark.parametrize("text", [
    "[]", "stages: [1]", "stages: {x: {outs: 1}}", "a: &a [*a]", "{", "\x00",
    "!!python/object/apply:os.system [echo]",
    "stages: {x: {outs: [{path: data/d}]}}",
    *(json.dumps({"stages": {"x": {"outs": [{"path": path, "md5": "0" * 32}]}}})
      for path in PATHS)])
def test_a_dvc_lock_of_another_form(text):
    with pytest.raises(UserError, match="^this "):
        artifact.recorded(text, "this")


def test_what_is_laid_out_is_what_a_maintainer_takes(world):
    results = artifact.checked(world.results)
    assert {*results.kept} == KEPT
    assert {info.value for _, info in results.objects} == {
        md5 for path, md5 in results.outputs.items() if path not in KEPT}
    world.inside(world.work)
    ci.take(42)
    for path in ("dvc.lock", *results.outputs):
        files = [path] if (world.runner / path).is_file() else [
            file.relative_to(world.runner) for file in (world.runner / path).rglob("*")]
        assert files
        for file in files:
            assert (world.work / file).read_bytes() == (world.runner / file).read_bytes()
    with pytest.raises(UserError, match="gh run download 43"):
        ci.take(43)
    (world.work / "models/oak.csv").unlink()
    with pytest.raises(UserError, match=r"models/oak.csv"):
        ci.results()


@NOT_WINDOWS
@pytest.mark.parametrize("path", ["metrics/oak.json", "metrics", "dvc.lock", "models/oak"])
def test_a_link_of_the_branch_is_not_written_through(world, path):
    """The branch and the results are the attacker's, so every hash is right: the link points to
    .git, where `config` could name a program that git starts."""
    file, inside = world.work / path, world.work / ".git" / "inside"
    before = shutil.copytree(file, inside) if file.is_dir() else shutil.copy(file, inside)
    (shutil.rmtree if file.is_dir() else Path.unlink)(file)
    file.symlink_to(os.path.relpath(before, file.parent))
    git(world.work, "add", "--force", path)
    git(world.work, "commit", "--quiet", "-m", "evil")
    world.inside(world.work)
    known = [each.read_bytes() for each in (inside, *inside.rglob("*")) if each.is_file()]
    with pytest.raises(UserError, match=f"^{path} is a symbolic link"):
        ci.take(42)
    assert known == [each.read_bytes() for each in (inside, *inside.rglob("*")) if each.is_file()]


def test_pull_brings_what_the_remote_has(world, capsys, tmp_path):
    world.publish()
    checkout = tmp_path / "checkout"
    git(tmp_path, "clone", "--quiet", "--branch=topic", str(world.origin), str(checkout))
    set_remote(checkout, world.remote)
    world.inside(checkout)
    world.monkeypatch.setenv("BASE", world.sha)
    ci.pull()
    assert "files fetched" in capsys.readouterr().out
    for path in ("models/oak/weights.txt", "models/oak.csv", "reports/oak.ipynb"):
        assert (checkout / path).read_bytes() == (world.runner / path).read_bytes()
    for remote, words in (("", "No DVC remote"), ("http://127.0.0.1:9/x", "The DVC remote http")):
        set_remote(checkout, remote)
        ci.pull()
        assert words in capsys.readouterr().out
