"""The workflows themselves, executed by act: each kind of run, and the comment that it leaves, whole."""

import os
import re
from pathlib import Path

import pytest
from portable_models import portable
from projects import command, edit_params, edit_yaml
from world import DEPENDABOT, PERSON, World

GOLDEN = Path(__file__).parent / "golden"
S3 = {"DVC_REMOTE_URL": "s3://bucket/dvc"}
HTTP_ACCOUNT = {"DVC_READ_USER": "reader", "DVC_READ_PASSWORD": "read-secret"}


def wrong(cases: int, **more):
    """A change of the one parameter, and of the data where it is named."""
    return lambda folder: edit_params(folder, lambda params: (
        params["models"]["near"].update(wrong=cases), params["data"].update(more)))


def reviewed(world: World, event: dict, sha: str, actor: str = PERSON, **more):
    """The run of a pull request and the comment that follows; the run. Nothing ends without a comment."""
    run = world.run("report", "pull_request", event, sha, actor=actor, **more)
    posted = world.follow("comment", run, "pull_request", event, sha, actor, variables=more.get("variables"))
    assert posted.jobs == {"comment": "success"}, posted.text
    assert world.comment, posted.text
    return run


def is_golden(world: World, name: str) -> None:
    file = GOLDEN / f"{name}.md"
    if os.environ.get("GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(world.comment, encoding="utf-8")
    assert world.comment == file.read_text(encoding="utf-8")


def pages(world: World, run) -> dict[str, str]:
    return {re.sub(r"-\d+-", "-RUN-", name): kind for name, kind in world.artifacts(run).items()}


def test_main_keeps_its_results_for_pull_requests(world):
    run = world.run("report", "push", {"before": world.git("rev-parse", "main")})
    assert run.jobs == {"pipeline": "success"}, run.text
    assert pages(world, run) == {"report": "zip", "results": "zip", "near-RUN-1.html": "file"}
    assert len(list((world.folder / "caches").iterdir())) == 1
    assert world.follow("comment", run, "push", {}, world.git("rev-parse", "main")).jobs == {}  # main has no comment
    assert world.comment is None


def test_nothing_changed(world):
    sha = world.push("topic", lambda folder: (folder / "README.md").write_text("words"))
    run = reviewed(world, world.pull_request(sha), sha)
    assert run.jobs == {"pipeline": "success"} and "every cell ran" not in run.text, run.text
    assert pages(world, run) == {"report": "zip", "results": "zip", "near-RUN-1.html": "file"}
    is_golden(world, "nothing_changed")


def test_to_another_branch_than_main(world):
    def release(folder):
        (folder / "far.json").write_text('{"error": 0.4}\n')
        world.run_pipeline(folder)

    world.push("release", release)
    sha = world.push("topic", lambda folder: (folder / "README.md").write_text("words"), of="release")
    run = reviewed(world, world.pull_request(sha, base="release"), sha)
    assert run.jobs == {"pipeline": "success"} and "| `far` | unchanged | 0.4000 | 0 |" in world.comment
    assert world.comment.startswith("**nothing changed**: champion `near` 0.0400; no stage has a change.")


def test_from_a_branch(world):
    sha = world.push("topic", wrong(2))
    run = reviewed(world, event := world.pull_request(sha), sha)
    assert run.jobs == {"pipeline": "success"}, run.text
    assert pages(world, run) == {
        "report": "zip", "results": "zip", "changes-RUN-1.html": "file", "near-RUN-1.html": "file"}
    is_golden(world, "branch")
    again = reviewed(world, event, sha, attempt=2, run_id=run.id)  # the second attempt: the same comment, updated
    assert again.jobs == {"pipeline": "success"}, again.text
    assert sorted(pages(world, again)) == [
        "changes-RUN-1.html", "changes-RUN-2.html", "near-RUN-1.html", "near-RUN-2.html", "report", "results"]
    is_golden(world, "branch")


def test_a_model_that_changed_can_be_asked_in_the_browser(world):
    """The project has a page and a portable model in this branch; the comment links to both in one file."""
    def change(folder):
        edit_yaml(folder / "dvc.yaml", lambda content: content["stages"]["far"].update(
            cmd="mkdir -p metrics models && cp far.json metrics/far.json && cp far.onnx models/far.onnx",
            deps=["far.json", "far.onnx"], outs=["models/far.onnx"]))
        portable(folder / "far.onnx", 7)
        for name in ("ask.html", "ask.js", "ask.local.js"):
            (folder / name).write_text("<title>Ask</title><body></body>" if name == "ask.html" else "")
        with (folder / "project.yaml").open("a") as contract:
            contract.write("serve: {page: ask.html}\n")

    sha = world.push("topic", change)
    run = reviewed(world, world.pull_request(sha), sha)
    assert run.jobs == {"pipeline": "success"}, run.text
    assert pages(world, run).get("try-far-RUN-1.html") == "file", run.text
    link = "[far](<https://github.com/owner/name/actions/runs/N/artifacts/N>)"
    assert f"Ask the model in your browser: {link}." in world.comment


def test_from_a_fork_on_an_s3_remote_without_credentials(world):
    sha = world.push("main-of-a-fork", wrong(2))
    run = reviewed(world, world.pull_request(sha, fork=True), sha, variables=S3)
    assert run.jobs == {"pipeline": "success"}, run.text
    is_golden(world, "fork")


@pytest.mark.parametrize("actor", [DEPENDABOT, PERSON])  # a person can push to Dependabot's branch
def test_by_dependabot(world, actor):
    sha = world.push("dependabot/pip", lambda folder: (folder / "pins.txt").write_text("pins"))
    run = reviewed(world, world.pull_request(sha, author=DEPENDABOT), sha, actor)
    assert run.jobs == {"pipeline": "success"}, run.text
    is_golden(world, "nothing_changed")


def test_a_cell_that_fails(world):
    sha = world.push("topic", wrong(95))
    run = reviewed(world, world.pull_request(sha), sha)
    assert run.jobs == {"pipeline": "failure"}
    assert pages(world, run) == {"report": "zip", "near-RUN-1.html": "file"}
    is_golden(world, "failed")


def test_no_mirror(world):
    sha = world.push("topic", wrong(4, source="none"))
    run = reviewed(world, world.pull_request(sha), sha)
    assert run.jobs == {"pipeline": "failure"} and "https:¦//a.example, https:¦//b.example" in world.comment
    is_golden(world, "no_mirror")


def test_a_set_up_that_fails_takes_the_place_of_the_old_comment(world):
    world.comments.append({"id": 1, "issue": 7, "user": {"login": "github-actions[bot]"},
                           "body": "old\n\n<!-- nbproof: report -->"})
    sha = world.push("topic", wrong(2))
    run = reviewed(world, world.pull_request(sha), sha, environment={"SETUP_FAILS": "uv could not install"})
    assert run.jobs == {"pipeline": "failure"} and pages(world, run) == {}
    is_golden(world, "no_report")


def test_an_s3_remote_whose_credentials_have_expired(world):
    sha = world.push("topic", wrong(2))
    variables = S3 | {"DVC_REMOTE_ENDPOINT": f"{world.server.address}/s3"}
    secrets = {"DVC_READ_USER": "key", "DVC_READ_PASSWORD": "secret"}
    run = reviewed(world, world.pull_request(sha), sha, variables=variables, secrets=secrets)
    assert run.jobs == {"pipeline": "success"}, run.text
    assert "user, password or token are wrong or missing" in world.comment
    assert "files fetched" not in run.text and "no DVC remote is configured" not in world.comment


def test_the_remote_is_read(world):
    sha = world.push("topic", lambda folder: (folder / "README.md").write_text("words"))
    variables = {"DVC_REMOTE_URL": f"{world.server.address}/dvc"}
    run = reviewed(world, world.pull_request(sha), sha, variables=variables, secrets=HTTP_ACCOUNT)
    assert run.jobs == {"pipeline": "success"} and "files fetched" in run.text, run.text


def test_a_page_that_does_not_upload_costs_its_link_alone(world):
    sha = world.push("topic", wrong(2))
    run = reviewed(world, world.pull_request(sha), sha, environment={"REFUSED_ARTIFACTS": "*.html"})
    assert run.jobs == {"pipeline": "success"} and pages(world, run) == {"report": "zip", "results": "zip"}
    assert "`reports/near.html`" in world.comment and "[open]" not in world.comment


def test_a_dispatched_run_is_commented_too(world):
    sha = world.push("topic", wrong(2))
    event = world.pull_request(sha)
    run = world.run("report", "workflow_dispatch", {}, sha, variables={"RUNNER": '["ubuntu-latest"]'})
    assert run.jobs == {"pipeline": "success"}, run.text
    assert world.follow("comment", run, "workflow_dispatch", event, sha).jobs == {"comment": "success"}
    is_golden(world, "branch")


@pytest.mark.parametrize("conclusion", ["cancelled", "action_required", "skipped"])
def test_a_run_that_did_not_run_is_not_commented(world, conclusion):
    sha = world.push("topic", wrong(2))
    event = world.pull_request(sha)
    ended = {"id": 1, "conclusion": conclusion, "event": "pull_request", "head_sha": sha, "head_branch": "topic",
             "head_repository": event["pull_request"]["head"]["repo"]}
    assert world.run("comment", "workflow_run", {"workflow_run": ended}).jobs == {}


def test_what_is_published_and_by_whom(world):
    sha = world.push("topic", wrong(3))
    event = world.pull_request(sha)
    variables = {"DVC_REMOTE_URL": f"{world.server.address}/dvc"}
    run = world.run("report", "pull_request", event, sha, variables=variables, secrets=HTTP_ACCOUNT)
    assert run.jobs == {"pipeline": "success"}, run.text
    write = {"DVC_WRITE_USER": "writer", "DVC_WRITE_PASSWORD": "write-secret"}
    done = world.follow("publish", run, "pull_request", event, sha, variables=variables, secrets=write)
    assert done.jobs == {"publish": "success"}, done.text
    assert f"`nbproof github take {run.id}`" in done.text and "were new to the DVC remote" in done.text
    assert world.git("ls-remote", "origin", "refs/heads/topic").startswith(sha)  # no commit without an App
    app = {"PUBLISH_APP_ID": "Iv1"}
    done = world.follow("publish", run, "pull_request", event, sha, variables=variables | app,
                        secrets=write | {"PUBLISH_APP_KEY": "key"})
    assert done.jobs == {"publish": "success"} and "holds dvc.lock and the small outputs" in done.text, done.text
    world.git("fetch", "-q", "origin", "topic")
    assert world.git("diff", "--name-only", sha, "FETCH_HEAD").split() == [
        "dvc.lock", "metrics/answers.csv", "metrics/compare.json", "metrics/near.csv", "metrics/near.json"]
    fork = world.pull_request(sha, fork=True)
    assert world.follow("publish", run, "pull_request", fork, sha, variables=variables | app).jobs == {}
    assert world.follow("publish", run, "pull_request", event, sha).jobs == {}  # nothing is set up


def test_retrain(world):
    done = world.run("retrain", "workflow_dispatch", {})
    assert done.jobs == {"retrain": "success"} and "0 numbers moved" in done.text, done.text


def test_mains_pages_are_published_where_a_variable_says(world):
    variables = {"PAGES_URL": "https://owner.github.io/name/"}
    run = world.run("report", "push", {"before": world.git("rev-parse", "main")}, variables=variables)
    assert run.jobs == {"pipeline": "success", "pages": "success"}, run.text
    site = world.folder / "site"
    assert {"index.html", "near.html"} <= {
        path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    sha = world.push("topic", wrong(2))
    reviewed(world, world.pull_request(sha), sha, variables=variables)
    assert "[pages of the default branch](<https://owner.github.io/name/index.html>)" in world.comment


def test_processors_are_compared(world):
    """Here each job has the same machine, whatever its label."""
    run = world.run("processors", "workflow_dispatch", {})
    assert run.jobs["same"] == "success" and "The same bytes on 6 machines." in run.text, run.text
    place = world.folder / "artifacts" / run.id
    other = place / "computed-two" / "two.json"
    other.write_text(other.read_text().replace('"results": "', '"results": "0'))
    done = command(world.work, str(world.python), "-m", "nbproof", "github", "same", "--folder", str(place),
                   WARM_PYTHON=str(world.python))
    assert done.returncode == 1 and "Not the same bytes: " in done.stdout, done.stdout
