"""The workflows themselves, executed by act: each kind of run, and the comment that it leaves."""

import os
import shutil
from pathlib import Path

import pytest
from portable_models import portable
from projects import MLMODEL, edit_params, edit_yaml
from world import DEPENDABOT, World

GOLDEN = Path(__file__).with_name("branch.md")
READ = {"DVC_READ_USER": "reader", "DVC_READ_PASSWORD": "r-secret"}
RESULTS = ["report", "results", "review-RUN-1.html"]


def wrong(cases: int, **data):
    """A change of the one parameter, and of the data where it is named."""
    return lambda folder: edit_params(folder, lambda params: (
        params["models"]["near"].update(wrong=cases), params["data"].update(data)))


def words(folder: Path) -> None:
    (folder / "README.md").write_text("words")


def remote(url: str):
    """A change of the words, and the DVC remote at `url`."""
    def change(folder: Path) -> None:
        words(folder)
        (folder / ".dvc/config").write_text(
            f"[core]\n    remote = r\n['remote \"r\"']\n    url = {url}\n"
            + ("    method = PUT\n" if url.startswith("http") else ""))
    return change


def reviewed(world: World, event: dict, sha: str, **more):
    """The run of a pull request and the comment that follows; the run."""
    run = world.run("report", "pull_request", event, sha, **more)
    assert run.job, run.text
    posted = world.follow("comment", run, event, sha, variables=more.get("variables"))
    assert posted.job == "success", posted.text
    how = "CML" if shutil.which("cml") else "gh"
    assert f"Posted by {how} on pull request 7." in posted.text, posted.text
    assert world.api.comments, posted.text
    return run


def is_golden(world: World) -> None:
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.write_text(world.comment, encoding="utf-8")
    assert world.comment == GOLDEN.read_text(encoding="utf-8")


def test_main_has_no_comment_and_publishes_its_pages(world):
    variables, main = {"PAGES_URL": "https://owner.github.io/name/"}, world.git("rev-parse", "main")
    run = world.run("report", "push", {"before": main}, variables=variables)
    assert run.job == "success" and world.artifacts(run) == [*RESULTS, "site"], run.text
    assert world.follow("comment", run, {}, main, "push").job == "" and not world.api.comments
    assert world.follow("pages", run, {}, main, "push").job == ""
    done = world.follow("pages", run, {}, main, "push", variables=variables)
    assert done.job == "success", done.text
    names = {path.name for path in (world.folder / "site").iterdir()}
    assert names == {"index.html", "near.html"}
    sha = world.push("topic", words)
    reviewed(world, world.pull_request(sha), sha, variables=variables)
    assert "(<https://owner.github.io/name/index.html>)" in world.comment


def test_by_a_branch_and_once_more(world):
    sha = world.push("topic", wrong(2))
    run = reviewed(world, event := world.pull_request(sha), sha)
    assert run.job == "success" and world.artifacts(run) == RESULTS, run.text
    is_golden(world)
    again = reviewed(world, event, sha, attempt=2, run_id=run.id)  # the same comment, updated
    assert world.artifacts(again) == [*RESULTS, "review-RUN-2.html"]
    is_golden(world)
    again.job = "cancelled"  # a newer run comes
    assert world.follow("comment", again, event, sha).job == ""
    world.api.runs.insert(0, {"id": 9, "path": ".github/workflows/tests.yml", "head_sha": sha,
                              "event": "pull_request", "conclusion": "failure"})
    again.id, again.job = "9", "failure"  # `tests` ends later
    assert world.follow("comment", again, event, sha).job == "success"
    assert " Tests of HEAD: **failed**." in world.comment.partition("\n")[0]


def test_by_a_fork_on_s3_without_credentials(world):
    sha = world.push("topic", lambda folder: (remote("s3://bucket/dvc")(folder), wrong(2)(folder)))
    run = reviewed(world, world.pull_request(sha, "fork/name"), sha)
    assert run.job == "success", run.text
    assert "gives no usable response (NoCredentialsError" in run.text
    is_golden(world)


def test_by_dependabot(world):
    sha = world.push("dependabot/pip", words)
    run = reviewed(world, world.pull_request(sha, author=DEPENDABOT), sha, actor=DEPENDABOT)
    assert run.job == "success" and "every cell ran" not in run.text, run.text
    assert "**No model changed**. No stage has a change. The base is `BASE`.\n" in world.comment


def test_a_cell_that_fails(world):
    sha = world.push("topic", wrong(95))
    run = reviewed(world, world.pull_request(sha), sha)
    assert run.job == "failure" and world.artifacts(run) == ["report", "review-RUN-1.html"]
    assert world.comment.startswith("**`near` failed at cell 4**. Not run: `compare`. ")
    assert "AssertionError: 95 of 100 are too many\n" in world.comment
    assert "`near` | **failed at cell 4** | 0.0400 | – |  |  | [open](<" in world.comment


def test_no_mirror_gives_the_data(world):
    """In CI nothing takes its place."""
    sha = world.push("topic", wrong(4, source="none"))
    run = reviewed(world, world.pull_request(sha), sha)
    assert run.job == "failure" and world.comment.startswith("**`near` failed at cell 4**. ")
    assert "Fallback: No mirror gave the data" in world.comment


def test_a_set_up_that_fails_takes_the_place_of_the_old_comment(world):
    world.api.comment("old\n\n<!-- nbproof: report -->\n\n"
                      '![](https://cml.dev/watermark.png#0 "CML watermark pipeline-report")',
                      "github-actions[bot]")
    sha = world.push("topic", wrong(2))
    run = reviewed(world, world.pull_request(sha), sha, environment={"SETUP_FAILS": "no uv"})
    assert run.job == "failure" and world.artifacts(run) == []
    assert world.comment.startswith(
        "**no report**: the run of HEAD ended at its step `make setup`. ")


@pytest.mark.parametrize(("shown", "job", "words"), [
    ("1", "success", "the same outputs"), ("id(object())", "failure", "**other outputs**, see")])
def test_without_tests_of_its_own_the_notebooks_are_executed_again(world, shown, job, words):
    def change(folder: Path) -> None:
        (folder / ".github/workflows/tests.yml").unlink()
        file = folder / "notebooks/near.ipynb"
        file.write_text(file.read_text().replace("{wrong} of 100 wrong", f"{{{shown}}}"))

    sha = world.push("topic", change)
    run = reviewed(world, world.pull_request(sha), sha)
    first = world.comment.partition("\n")[0]
    assert run.job == job and f" Executed again: {words}" in first, run.text


def test_a_model_that_changed_can_be_asked_in_the_browser(world):
    def change(folder: Path) -> None:
        edit_yaml(folder / "dvc.yaml", lambda content: content["stages"]["far"].update(
            cmd="mkdir -p metrics models/far && cp far.json metrics/far.json && "
                "cp far.onnx models/ && cp MLmodel models/far/",
            deps=["far.json", "far.onnx", "MLmodel"], outs=["models/far", "models/far.onnx"]))
        portable(folder / "far.onnx", 7)
        (folder / "MLmodel").write_text(MLMODEL)
        for name in ("ask.html", "ask.js", "ask.local.js"):
            text = "<title>Ask</title><body></body>" if name[4:] == "html" else ""
            (folder / name).write_text(text)
        with (folder / "project.yaml").open("a") as contract:
            contract.write("serve: {page: ask.html}\n")

    sha = world.push("topic", change)
    # npm downloads onnxruntime-web, all else stays without a network.
    run = reviewed(world, world.pull_request(sha), sha, environment={"HTTPS_PROXY": ""})
    assert world.artifacts(run) == [*RESULTS, "try-far-RUN-1.html"], run.text
    link = "(<https://github.com/owner/name/actions/runs/N/artifacts/N>)"
    assert f"[Try the model in your browser.]{link}" in world.comment


def test_what_does_not_upload_costs_its_link_alone(world):
    sha = world.push("topic", wrong(2))
    refused = {"REFUSED_ARTIFACTS": "*.html"}
    run = reviewed(world, world.pull_request(sha), sha, environment=refused)
    assert run.job == "success" and world.artifacts(run) == RESULTS[:2]
    assert "actions/runs/N#near>" in world.comment
    assert "artifacts/" not in world.comment and ".invalid" not in world.comment


def test_the_remote_is_read(world):
    sha = world.push("topic", remote(f"{world.api.address}/dvc"))
    run = reviewed(world, world.pull_request(sha), sha, secrets=READ)
    assert run.job == "success" and "files fetched" in run.text, run.text


def test_publishing(world):
    """The job has main's checkout, and so main's remote."""
    sha, main = world.push("topic", wrong(3)), world.git("rev-parse", "main")
    event, publish = world.pull_request(sha), {"PUBLISH": "1"}
    run = world.run("report", "pull_request", event, sha)
    assert run.job == "success", run.text
    secrets = {"DVC_WRITE_USER": "writer", "DVC_WRITE_PASSWORD": "w-secret"}
    world.push("main", remote(f"{world.api.address}/dvc"))
    try:
        done = world.follow("publish", run, event, sha, variables=publish, secrets=secrets)
        assert done.job == "success" and "were new to the DVC remote" in done.text, done.text
        assert f"`nbproof github take {run.id}`" in done.text
        secrets["PUBLISH_KEY"] = "key"
        done = world.follow("publish", run, event, sha, variables=publish, secrets=secrets)
        assert done.job == "success" and "holds dvc.lock" in done.text, done.text
    finally:
        world.git("checkout", "-qf", "--detach", main)
        world.git("branch", "-f", "main", main)
        world.git("push", "-qf", "origin", "main")
    world.git("fetch", "-q", "origin", "topic")
    assert world.git("diff", "--name-only", sha, "FETCH_HEAD").split() == [
        "dvc.lock", "metrics/answers.csv", "metrics/compare.json", "metrics/near.csv",
        "metrics/near.json"]
    fork = world.pull_request(sha, "fork/name")
    assert world.follow("publish", run, fork, sha, variables=publish).job == ""
    assert world.follow("publish", run, event, sha).job == ""  # nothing is set up


def test_retrain(world):
    done = world.run("retrain", "workflow_dispatch", {})
    assert done.job == "success" and "project.yaml: no metric." in done.text, done.text
    assert world.run("retrain", "schedule", {}).job == ""
