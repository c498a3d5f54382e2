"""What the job with write credentials does: a real git, a DVC remote in a folder, GitHub's API."""

import pytest
from github_api import BOT

from nbproof.notebook.errors import UserError
from nbproof.review import ci

from .results_world import KEPT, git


def pushed(world) -> set[bytes]:
    return {path.read_bytes() for path in world.remote.rglob("*") if path.is_file()}


def test_right_results_are_pushed_and_committed_together(world):
    said, head = world.publish(), git(world.origin, "rev-parse", "topic")
    assert "files were new to the DVC remote" in said and f"{head} holds dvc.lock" in said
    assert git(world.origin, "rev-parse", "topic^") == world.sha
    changed = git(world.origin, "diff", "--name-status", world.sha, "topic").replace("\t", " ")
    assert {*changed.splitlines()} == {
        "D metrics/elm.json", "D metrics/elm.csv",
        *(f"{'A' if 'fir' in path else 'M'} {path}" for path in KEPT)}
    shown = git(world.origin, "show", "topic:metrics/oak.json")
    assert shown == (world.runner / "metrics/oak.json").read_text().strip()
    made = {path.read_bytes() for folder in ("data", "models", "reports")
            for path in (world.results / "dvc" / folder).rglob("*") if path.is_file()}
    assert made < pushed(world)
    assert len(pushed(world) - made) == 3  # and the folders' lists; what git keeps is not DVC's
    assert git(world.origin, "log", "-1", "--format=%an", "topic") == BOT
    # it makes no loop: another machine's bytes are not put on top of its own commit
    world.set_result("models/oak.csv", other := b"another machine's predictions")
    assert "is a commit of this job" in world.publish(head)
    assert git(world.origin, "rev-parse", "topic") == head and other in pushed(world)


def test_a_link_of_the_branch_does_nothing(world):
    """git's index takes the bytes as they are, and a folder in the place of the link."""
    git(world.work, "rm", "-rq", "metrics")
    (world.work / "metrics").symlink_to(".git")
    sha = world.push()
    before = (world.trusted / "publishing" / ".git" / "config").read_bytes()
    assert "holds dvc.lock" in world.publish(sha)
    listed = git(world.origin, "ls-tree", "-r", "topic", "metrics/").splitlines()
    assert {line.split()[0] for line in listed} == {"100644"} and len(listed) == len(KEPT) - 1
    assert (world.trusted / "publishing" / ".git" / "config").read_bytes() == before


def test_nothing_new_or_no_key_makes_no_commit(world):
    assert "`nbproof github take 42`" in world.publish(commits=False)
    assert git(world.origin, "rev-parse", "topic") == world.sha and pushed(world)
    with pytest.raises(UserError, match=r"not those that main records .*by a pull request"):
        world.publish(branch="main")
    world.inside(world.work)
    world.results = world.work / "scratch/results"
    ci.results()
    for branch in ("topic", "main"):
        assert "The branch records these results already" in world.publish(branch=branch)
    assert git(world.origin, "rev-parse", "topic") == world.sha
    assert (world.work / "models/elm.csv").read_bytes() in pushed(world)  # its author may not push


def test_newer_commits_or_what_is_wrong_publishes_nothing(world):
    (world.work / "README.md").write_text("more")
    newer = world.push()
    assert "has newer commits" in world.publish()
    (world.results / "dvc/models/oak.csv").write_bytes(b"tampered")
    with pytest.raises(UserError, match="does not have the bytes"):
        world.publish(newer)
    assert git(world.origin, "rev-parse", "topic") == newer and not pushed(world)


def test_a_rule_of_the_branch_is_told(world):
    hook = world.origin / "hooks" / "update"
    hook.write_text("#!/bin/sh\necho commits must have signatures\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(UserError, match=r"git push failed: .*signatures"):
        world.publish()
