"""The workflows themselves: their form, what they may do; and the steps that no other test runs."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from nbproof.github import command
from nbproof.notebook import files

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".github"
CALL = "python3 environment.py"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yml"))
ACTIONS = sorted((FOLDER / "actions").glob("*/action.yml"))
ALL = [*WORKFLOWS, *ACTIONS]


def read(path: Path) -> dict:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def jobs() -> list[tuple[str, dict, dict]]:
    """Each job of each workflow: its place, the workflow, the job."""
    return [(f"{path.stem}.{key}", read(path), job) for path in WORKFLOWS for key, job in read(path)["jobs"].items()]


def steps() -> list[tuple[str, dict]]:
    of_actions = [(path.parent.name, each) for path in ACTIONS for each in read(path)["runs"]["steps"]]
    return [(place, each) for place, _, job in jobs() for each in job["steps"]] + of_actions


def job(place: str) -> dict:
    return next(job for found, _, job in jobs() if found == place)


def tool(program: str) -> str:
    """A program that requirements-dev.txt installs, beside this Python or on the PATH."""
    found = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    if not found:
        pytest.skip(f"{program} is not installed: requirements-dev.txt has it")
    return found


@pytest.mark.parametrize(
    ("schema", "files"),
    [("github-workflows", WORKFLOWS), ("github-actions", ACTIONS), ("dependabot", [FOLDER / "dependabot.yml"])],
)
def test_they_have_the_form_that_github_reads(schema, files):
    command = [tool("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_nothing():
    command = [
        tool("zizmor"),
        "--offline",
        "--no-progress",
        "--strict-collection",
        "--persona=auditor",
        "--color=never",
        str(FOLDER),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "No findings to report" in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("path", [*ALL, FOLDER / "dependabot.yml"], ids=name)
def test_an_exception_has_its_reason(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        if "zizmor:" in line:
            assert re.search(r"# zizmor: ignore\[[a-z-]+\] \w.{7,}", line), line


@pytest.mark.parametrize("path", ALL, ids=name)
def test_every_action_is_pinned_to_a_commit_with_its_version(path):
    used = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"\s*(- )?uses:", line)]
    for line in used:
        assert re.search(r"uses: \./|uses: [\w./-]+@[0-9a-f]{40} # v\d[\w.]*$", line), line


def test_an_action_has_one_pin_everywhere():
    pins = {
        match
        for path in ALL
        for match in re.findall(r"uses: ([\w./-]+)@([0-9a-f]{40})", path.read_text(encoding="utf-8"))
    }
    assert len(pins) == len({action for action, _ in pins})


def test_every_run_is_one_call_of_what_the_tests_run():
    for place, each in steps():
        line = each.get("run", "exit 1")
        if line.startswith("make "):
            assert re.search(rf"^{line[5:]}\b.*:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), place
        elif line not in ("exit 1", f"{CALL} setup", f"{CALL} drift",
                          f"{CALL} tool --tests -- playwright install --with-deps chromium",
                          "sudo apt-get install --yes --no-install-recommends qemu-user"):
            found = re.fullmatch(
                rf"{re.escape(CALL)} github (\w+)((?: --[a-z]+(?: \"\$RUNNER_TEMP/[\w./]+\"| \d+)?)*)", line
            )
            assert found, (place, line)
            asked = CliRunner().invoke(command.app, [found[1], "--help"], env={"COLUMNS": "200"}).output
            assert "Usage" in asked, (place, asked)
            assert all(option in asked for option in re.findall("--[a-z]+", found[2])), (place, asked)


def test_what_is_installed_gets_no_secret():
    """The set-up, which runs code of packages, comes before each step with a token or a secret, in a step without."""
    for place, _, each in jobs():
        runs = [(step["run"], str(step.get("env"))) for step in each["steps"] if "run" in step]
        if any("secrets." in env or "github.token" in env for _, env in runs):
            assert runs[0] == (f"{CALL} setup", "None"), place


def test_least_permissions():
    for place, workflow, each in jobs():
        assert workflow["permissions"] == {}, place
        writes = {key for key, value in each["permissions"].items() if value == "write"}
        # publish.yml commits by a GitHub App's own token
        allowed = {"comment.comment": {"pull-requests"}, "report.pages": {"pages", "id-token"}}
        assert writes == allowed.get(place, set()), place


def test_time_and_number_of_runs_are_bounded():
    for place, workflow, each in jobs():
        assert 0 < each["timeout-minutes"] <= 180, place
        assert "group" in workflow["concurrency"] and "cancel-in-progress" in workflow["concurrency"], place


def test_what_writes_executes_no_code_of_the_pull_request():
    for place in ("comment.comment", "publish.publish"):
        checkouts = [
            each["with"] for each in job(place)["steps"] if each.get("uses", "").startswith("actions/checkout@")
        ]
        assert len(checkouts) == 1
        reference = checkouts[0].get("ref", "")  # none: in a workflow_run that is the default branch
        assert "head" not in reference and "sha" not in reference.replace("base.sha", ""), place
        assert not any(each.get("uses", "").startswith("./") for each in job(place)["steps"]), place
    for path in WORKFLOWS:
        assert "pull_request_target" not in path.read_text(encoding="utf-8")


def test_secrets_are_where_they_are_needed_and_nowhere_else():
    found = {}
    for place, each in steps():
        for secret in re.findall(r"secrets\.(\w+)", str(each)):
            found.setdefault(secret, set()).add((place, each.get("run", "")))
    read_steps = {(place, f"{CALL} github pull") for place in ("report.pipeline", "drift.drift")}
    retrain_step = ("retrain.retrain", f"{CALL} github run --force")
    write_step = ("publish.publish", f'{CALL} github publish --results "$RUNNER_TEMP/results"')
    assert found == {
        "DVC_READ_USER": read_steps,
        "DVC_READ_PASSWORD": read_steps,
        "DVC_WRITE_USER": {write_step},
        "DVC_WRITE_PASSWORD": {write_step},
        "PUBLISH_APP_KEY": {("publish.publish", "")},
        "MLFLOW_TRACKING_USERNAME": {retrain_step},
        "MLFLOW_TRACKING_PASSWORD": {retrain_step},
    }
    assert job("publish.publish")["environment"] == "publish"
    for place, workflow, each in jobs():
        assert "secrets." not in str({**each, "steps": []}) + str(workflow.get("env")), place


def test_the_watch_starts_only_where_a_log_is_and_keeps_its_page_there():
    """The page shows what people drew: it is no artifact, and nothing runs where no variable names the log."""
    watch = job("drift.drift")
    assert watch["if"] == "vars.DRIFT_RUNNER != '' && vars.SERVED != ''"
    assert not any("upload" in each.get("uses", "") for each in watch["steps"])
    assert watch["steps"][-1] == {"run": f"{CALL} drift", "env": {"SERVED": "${{ vars.SERVED }}"}}


def test_what_nobody_reviewed_reaches_no_tracking_server():
    assert job("report.pipeline")["env"]["MLFLOW_TRACKING_URI"].startswith("sqlite:")


def test_a_fork_shares_no_group_with_a_branch_of_the_same_name():
    for place, workflow, _ in jobs():
        group = workflow["concurrency"]["group"]
        assert "head_branch" not in group or "head_repository.full_name" in group, place
        pushed = "push" in workflow.get("on", workflow.get(True, {}))  # `on` is a boolean to YAML 1.1
        assert not pushed or "github.event_name == 'push' && github.sha" in group, place  # no merge ends another's run


def test_where_it_runs_is_a_variable():
    for place in ("report.pipeline", "retrain.retrain"):
        assert "vars.RUNNER" in job(place)["runs-on"] and "'ubuntu-latest'" in job(place)["runs-on"]
    assert (
        "head.repo.full_name == github.repository" in job("report.pipeline")["runs-on"]
    )  # a fork's code stays off one's own machines


def test_the_report_asks_for_the_tests_by_name():
    assert job("tests.test")["name"].startswith(command.TESTS)


def test_slots_for_pages():
    found = [each for each in read(ACTIONS[0])["runs"]["steps"] if re.fullmatch(r"page\d+", each.get("id", ""))]
    assert [each["id"] for each in found] == [f"page{slot:02}" for slot in range(1, command.SLOTS + 1)]
    for each in found:
        path, slot = f"scratch/pages/{each['id'][4:]}/*.html", int(each["id"][4:])
        assert each["with"]["archive"] is False and each["with"]["path"] == path and each["continue-on-error"] is True
        assert each["if"] == f"steps.pages.outputs.count >= {slot}"


def test_a_failed_run_is_reported_before_it_fails_the_job():
    found = job("report.pipeline")["steps"]
    names = [each.get("run") or each["uses"].partition("@")[0] for each in found]
    run = names.index(f"{CALL} github run")
    assert names.index(f"{CALL} github pull") < run  # so that only what changed runs
    assert found[run]["continue-on-error"] is True and found[run]["id"] == "run"
    assert found[-1] == {"if": "steps.run.outcome != 'success'", "run": "exit 1"}
    always = [name for name, each in zip(names[run + 1 :], found[run + 1 :]) if "if" not in each]
    assert always == ["./.github/actions/pages", "actions/upload-artifact"]


# What the steps do, where no other test has it.


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A tiny project with one commit, in which this process works."""
    (tmp_path / "project.yaml").write_text("name: tiny\nmetric: {key: rmse, goal: min}\n")
    (tmp_path / "reports").mkdir()
    lock(tmp_path, {})
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    for name in ("GITHUB_STEP_SUMMARY", "STEPS", "HEAD_SHA", "BASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    files.root.cache_clear()
    yield tmp_path
    files.root.cache_clear()


def lock(folder: Path, pages: dict[str, str]) -> None:
    """A dvc.lock with these pages, each by the first digit of its sum."""
    outs = [{"path": f"reports/{name}.html", "md5": digit * 32, "size": 1} for name, digit in pages.items()]
    with (folder / "dvc.lock").open("w", encoding="utf-8") as file:
        YAML().dump({"schema": "2.0", "stages": {"all": {"cmd": "true", "outs": outs}}}, file)


def step(*words: str) -> str:
    """What a step prints, if it ends well."""
    done = CliRunner().invoke(command.app, words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_pages_fill_the_slots_what_changed_first(project, monkeypatch):
    names = [f"model{number:02}" for number in range(24)]
    lock(project, dict.fromkeys(names, "0"))
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "second"], check=True)
    lock(project, dict.fromkeys(names, "0") | {"model20": "1"})
    for each in names:
        (project / "reports" / f"{each}.html").write_text(each)
    monkeypatch.setenv("GITHUB_RUN_ID", "42")
    monkeypatch.setenv("GITHUB_RUN_ATTEMPT", "3")
    assert "model19, model21, model22, model23" in " ".join(step("pages", "--base", "HEAD").split())
    assert [path.name for path in (project / "scratch" / "pages" / "01").iterdir()] == ["model20-42-3.html"]
    assert step("pages", "--base", "0" * 40) and step("pages", "--base", "")  # a first push has no base
    step("pages", "--base", "HEAD")
    address = "https://github.com/owner/name/actions/runs/42/artifacts/5"
    given = {
        "page01": {"outputs": {"artifact-url": address}},
        "page02": {"outputs": {"artifact-url": "javascript:x"}},
        "page03": {},
    }
    assert command.links(json.dumps(given)) == {"model20": address}
    assert command.links("") == {}


def test_the_report_is_written_and_summarised(project, monkeypatch):
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    given = []
    monkeypatch.setattr("nbproof.report.build", lambda *some, **more: given.append((some, more)) or "the first line.\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project / "summary.md"))
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/name")
    monkeypatch.setenv("GITHUB_TOKEN", "token")
    command.fresh("run").joinpath("log").write_text("what the run printed", encoding="utf-8")
    for name in ("GITHUB_EVENT_NAME", "RUN_ID", "GITHUB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    step("report", "--base", "HEAD", "--run", "42", "--event", "push")
    step("report", "--base", "--all")  # no commit, and no option of git
    assert (project / "scratch" / "report" / "report.md").read_text(encoding="utf-8") == "the first line.\n"
    assert (project / "summary.md").read_text(encoding="utf-8").startswith("the first line.")
    assert given == [
        ((head, {}, "what the run printed", "42"), {"final": True}),
        (("", {}, "what the run printed", ""), {"final": False}),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for Python is a program of a POSIX system")
def test_a_run_ends_as_the_pipeline_and_keeps_what_it_printed(project, monkeypatch):
    python = project / "python"
    python.write_text('#!/bin/sh\necho "ran $*"; exit "$CODE"\n')
    python.chmod(0o755)
    monkeypatch.setattr(command.sys, "executable", str(python))
    for code in (0, 1, 2):
        monkeypatch.setenv("CODE", str(code))
        assert CliRunner().invoke(command.app, ["run"]).exit_code == code
        assert "--no-register" in (project / "scratch" / "run" / "log").read_text(encoding="utf-8")
        assert CliRunner().invoke(command.app, ["run", "--force"]).exit_code == code
        said = (project / "scratch" / "run" / "log").read_text(encoding="utf-8")
        assert said == "ran -u -m nbproof run --no-remedy --force\n"
