"""A test of the tests: one fault is planted in a workflow, and a case must notice it."""

import pytest
import test_on_github as cases
from projects import ROOT


def a_branch(world):
    """What most cases begin with: a run, its artifacts, its comment with links."""
    sha = world.push("topic", cases.wrong(2))
    run = cases.reviewed(world, world.pull_request(sha), sha)
    assert run.job == "success" and world.artifacts(run) == cases.RESULTS
    for words in ("| `near` | ran | 0.0400 | 0.0200 |", "artifacts/N#near", "The base is `BASE`.",
                  "git checkout HEAD\n"):
        assert words in world.comment


def executed_again(world):
    cases.test_without_tests_of_its_own_the_notebooks_are_executed_again(
        world, "id(object())", "failure", "**other outputs**, see")


MUTATIONS = [  # workflow, what, by what, and the case that must fail
    ("report", "github.event.pull_request.head.sha ||", "github.event.pull_request.head_sha ||",
     a_branch),
    ("report", "run: exit 1", "run: exit 0", cases.test_a_cell_that_fails),
    ("report", "REVIEW_URL: ${{ steps.review", "REVIEW_URLS: ${{ steps.review", a_branch),
    ("report", "{name: report,", "{name: reports,", a_branch),
    ("report", "secrets.DVC_READ_USER", "secrets.DVC_READ_NAME", cases.test_the_remote_is_read),
    ("comment", "HEAD_SHA: ${{ github.event.workflow_run.head_sha }}",
     "HEAD_SHA: ${{ github.event.workflow_run.sha }}", a_branch),
    ("report", " TEST:", " TESTS:", executed_again),
    ("comment", '["success", "failure", "timed_out"]', '["success", "timed_out"]',
     cases.test_a_set_up_that_fails_takes_the_place_of_the_old_comment),
    ("publish", "conclusion == 'success'", "conclusion == 'succeeded'", cases.test_publishing),
    ("publish", "secrets.DVC_WRITE_USER", "secrets.DVC_WRITE", cases.test_publishing),
]


@pytest.mark.parametrize(("name", "old", "new", "case"), MUTATIONS,
                         ids=[f"{name}-{old}" for name, old, *_ in MUTATIONS])
def test_a_planted_fault_is_noticed(world, name, old, new, case):
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    world.fault = (name, old, new)
    with pytest.raises(AssertionError):
        case(world)
    assert world.planted, "the fault was in no workflow that ran"
