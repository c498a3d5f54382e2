"""A test of the tests: one fault is planted in a workflow, and the cases that follow must notice it."""

import shutil

import pytest
import test_on_github as cases

REPORT, COMMENT, PUBLISH, PAGES = (
    f".github/{name}" for name in ("workflows/report.yml", "workflows/comment.yml", "workflows/publish.yml",
                                   "actions/pages/action.yml"))
MUTATIONS = [  # where, what, by what, and the case that must fail
    (REPORT, "- id: run\n", "- id: runs\n", "nothing_changed"),
    (REPORT, "if: steps.run.outcome != 'success'\n        run: exit 1",
     "if: steps.run.conclusion != 'success'\n        run: exit 1", "a_command_that_fails"),
    (REPORT, "ref: ${{ github.event.pull_request.head.sha ||", "ref: ${{ github.event.pull_request.head_sha ||",
     "nothing_changed"),
    (REPORT, "BASE: ${{ github.event.pull_request.base.sha ||", "BASE: ${{ github.event.pull_request.base.ref ||",
     "to_another_branch"),
    (REPORT, "base: ${{ env.BASE }}", "base: ${{ env.BASES }}", "to_another_branch"),
    (REPORT, "path: scratch/report/report.md", "path: scratch/reports/report.md", "nothing_changed"),
    (REPORT, "{name: report,", "{name: reports,", "nothing_changed"),
    (REPORT, "path: scratch/results,", "path: scratch/result,", "nothing_changed"),
    (REPORT, "{name: results,", "{name: result,", "nothing_changed"),
    (REPORT, "REMOTE_URL: ${{ vars.DVC_REMOTE_URL", "REMOTE_URL: ${{ vars.DVC_REMOTE", "the_remote_is_read"),
    (REPORT, "secrets.DVC_READ_USER", "secrets.DVC_READ_NAME", "the_remote_is_read"),
    (REPORT, "REMOTE_PASSWORD:", "REMOTE_PASS:", "the_remote_is_read"),
    (REPORT, "github.event_name == 'push'\n        run: .venv/bin/nbproof github keep",
     "github.event_name == 'pushed'\n        run: .venv/bin/nbproof github keep", "main_keeps"),
    (REPORT, "if: steps.run.outcome == 'success'\n        run: .venv/bin/nbproof github try",
     "if: steps.runs.outcome == 'success'\n        run: .venv/bin/nbproof github try", "to_be_tried"),
    (REPORT, "arch }}-${{ github.sha }}", "arch }}-${{ github.event.sha }}", "main_keeps"),
    (PAGES, "id: page01\n      if: steps.pages.", "id: pages01\n      if: steps.pages.", "nothing_changed"),
    (PAGES, "if: steps.pages.outputs.count >= 1\n", "if: steps.page.outputs.count >= 1\n", "nothing_changed"),
    (PAGES, "path: scratch/pages/01/", "path: scratch/page/01/", "nothing_changed"),
    (PAGES, 'STEPS: "', 'STEP: "', "nothing_changed"),
    (COMMENT, "github.event.workflow_run.conclusion)", "github.event.workflow_run.conclusions)", "nothing_changed"),
    (COMMENT, "workflow_run.event != 'push'", "workflow_run.event == 'push'", "nothing_changed"),
    (COMMENT, "name: report\n          path", "name: reports\n          path", "nothing_changed"),
    (COMMENT, "run-id: ${{ github.event.workflow_run.id }}", "run-id: ${{ github.event.workflow_run.run_id }}",
     "nothing_changed"),
    (COMMENT, "HEAD_SHA: ${{ github.event.workflow_run.head_sha }}", "HEAD_SHA: ${{ github.event.workflow_run.sha }}",
     "nothing_changed"),
    (COMMENT, "RUN_ID:", "RUN:", "nothing_changed"),
    (COMMENT, "report/report.md", "reports/report.md", "nothing_changed"),
    (COMMENT, "continue-on-error: true # a run that ended early", "continue-on-error: false # a run that ended early",
     "no_report"),
    (PUBLISH, "conclusion == 'success'", "conclusion == 'succeeded'", "published"),
    (PUBLISH, "name: results", "name: result", "published"),
    (PUBLISH, "steps.app.outputs.token", "steps.apps.outputs.token", "published"),
    (PUBLISH, "secrets.DVC_WRITE_USER", "secrets.DVC_WRITE", "published"),
]


def main_keeps(world) -> None:
    """The other cases need what main kept: it is put back."""
    main, caches, aside = world.git("rev-parse", "main"), world.folder / "caches", world.folder / "aside"
    if caches.exists():
        caches.rename(aside)
    try:
        run = world.run("report", "push", {"before": main})
        assert run.jobs == {"pipeline": "success"}, run.text
        assert (caches / f"results-Linux-X64-{main}" / "scratch" / "main" / "dvc.lock").exists()
    finally:
        if aside.exists():
            shutil.rmtree(caches, ignore_errors=True)
            aside.rename(caches)


def a_command_that_fails(world) -> None:
    sha = world.push("topic", lambda folder: (folder / "far.json").unlink())
    run = cases.reviewed(world, world.pull_request(sha), sha)
    assert run.jobs == {"pipeline": "failure"} and world.comment.startswith("**`far` failed**")
    assert sorted(cases.pages(world, run)) == ["near-RUN-1.html", "report"]


CASES = {
    "main_keeps": main_keeps, "a_command_that_fails": a_command_that_fails,
    "to_another_branch": cases.test_to_another_branch_than_main,
    "nothing_changed": cases.test_nothing_changed, "the_remote_is_read": cases.test_the_remote_is_read,
    "to_be_tried": cases.test_a_model_that_changed_can_be_asked_in_the_browser,
    "no_report": cases.test_a_set_up_that_fails_takes_the_place_of_the_old_comment,
    "published": cases.test_what_is_published_and_by_whom,
}


@pytest.mark.parametrize("name", CASES)
def test_the_cases_hold_without_a_fault(world, name):
    CASES[name](world)


@pytest.mark.parametrize(("path", "old", "new", "name"), MUTATIONS, ids=range(1, len(MUTATIONS) + 1))
def test_a_planted_fault_is_noticed(world, path, old, new, name):
    assert world.git("show", f"main:{path}").count(old) == 1, "outside of what a noticed fault raises"
    world.mutation = (path, old, new)
    with pytest.raises(AssertionError):
        CASES[name](world)
