"""What the job with write credentials does: a real git, a DVC remote in a folder, GitHub's API."""

import pytest
from github_api import BOT

from nbproof.notebook.errors import UserError

from .results_world import AFTER, BEFORE, git, write


def test_right_results_are_pushed_and_committed_together(world):
    said = world.publish()
    assert "files were new to the DVC remote" in said and f"{world.head} holds dvc.lock" in said
    assert git(world.origin, "rev-parse", "topic^") == world.sha
    changed = git(world.origin, "diff", "--name-status", world.sha, "topic").replace("\t", " ")
    assert set(changed.splitlines()) == {
        "M dvc.lock", "M metrics/cnn.json", "A metrics/new.csv", "D metrics/gone.json",
        "D reports/small/a.txt", "M reports/small/b.txt", "A reports/small/c/d.txt"}
    shown = git(world.origin, "show", "topic:metrics/cnn.json")
    assert shown.encode() == AFTER["metrics/cnn.json"]
    assert {b"new", b"new weights", b"the same", b'{"new": 1}'} < world.pushed
    assert len(world.pushed) == 5  # and the folder's list; what git keeps is not DVC's
    assert git(world.origin, "log", "-1", "--format=%an", "topic") == BOT
    # it makes no loop: another machine's bytes are not put on top of its own commit
    sha, pushed = world.head, world.pushed
    world.set_results(AFTER | {"models/mlp": b"another machine's model"})
    assert "is a commit of this job" in world.publish(sha) and world.head == sha
    assert world.pushed > pushed


def test_a_link_or_a_filter_of_the_branch_does_nothing(world):
    """git's index takes the bytes as they are, and a folder in the place of the link."""
    (world.work / "metrics/cnn.json").unlink()
    (world.work / "metrics/gone.json").unlink()
    (world.work / "metrics").rmdir()
    (world.work / "metrics").symlink_to(".git")
    sha = world.push()
    before = (world.trusted / "publishing" / ".git" / "config").read_bytes()
    assert "holds dvc.lock" in world.publish(sha)
    listed = git(world.origin, "ls-tree", "-r", "topic", "metrics/").splitlines()
    assert [line.split()[0] for line in listed] == ["100644", "100644"]
    assert (world.trusted / "publishing" / ".git" / "config").read_bytes() == before


def test_nothing_new_or_no_key_makes_no_commit(world):
    assert "`nbproof github take 42`" in world.publish(commits=False)
    assert world.head == world.sha and world.pushed
    world.set_results(BEFORE)
    assert "The branch records these results already" in world.publish() and world.head == world.sha
    assert b"old weights" in world.pushed  # the author may have no right to push


def test_a_branch_with_newer_commits_is_left_alone(world):
    write(world.work, {"README.md": "more"})
    newer = world.push()
    assert "has newer commits" in world.publish() and world.head == newer and not world.pushed


def test_on_main_nothing_is_committed(world):
    with pytest.raises(UserError, match=r"not those that main records .*by a pull request"):
        world.publish(branch="main")
    assert world.untouched()
    world.set_results(BEFORE)
    assert "records these results already" in world.publish(branch="main") and world.pushed


def test_what_is_wrong_publishes_nothing(world):
    file = world.results / "dvc" / "models" / "mlp"
    file.write_bytes(b"tampered")
    with pytest.raises(UserError, match="does not have the bytes"):
        world.publish()
    assert world.untouched()
    world.set_results(AFTER)
    world.remote.rmdir()
    world.remote.write_text("a file, no folder")
    with pytest.raises(UserError, match="The DVC remote"):
        world.publish()
    assert world.head == world.sha


def test_a_rule_of_the_branch_is_told(world):
    hook = world.origin / "hooks" / "update"
    write(world.origin, {"hooks/update": "#!/bin/sh\necho commits must have signatures\nexit 1\n"})
    hook.chmod(0o755)
    with pytest.raises(UserError, match=r"git push failed: .*signatures"):
        world.publish()
