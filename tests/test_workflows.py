"""The workflows themselves: their form, what they may do, and that no fault of the project's first workflow comes back."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import ROOT
from pipeline.github import lock, pages, publish, report, step

FOLDER = ROOT / ".github"
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
        pytest.skip(f"{program} is not installed (python -m pipeline setup --tests installs it)")
    return found


def test_the_workflows_are_there():
    assert [path.stem for path in WORKFLOWS] == ["comment", "publish", "report", "retrain", "tests"]


@pytest.mark.parametrize(("schema", "files"), [("github-workflows", WORKFLOWS), ("github-actions", ACTIONS), ("dependabot", [FOLDER / "dependabot.yml"])])
def test_they_have_the_form_that_github_reads(schema, files):
    command = [tool("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_nothing():
    command = [tool("zizmor"), "--offline", "--no-progress", "--strict-collection", "--persona=auditor", "--color=never", str(FOLDER)]
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
    pins = {match for path in ALL for match in re.findall(r"uses: ([\w./-]+)@([0-9a-f]{40})", path.read_text(encoding="utf-8"))}
    assert len(pins) == len({action for action, _ in pins})


def test_every_run_is_one_call_of_what_the_tests_run():
    for place, each in steps():
        if "run" in each:
            assert re.fullmatch(r"(make|python -m pipeline) [\w .-]+( --[a-z]+ \"\$RUNNER_TEMP/[\w./]+\")?", each["run"]), (place, each["run"])
            assert "${{" not in each["run"], place
            words = re.sub(r"\"\$RUNNER_TEMP/([^\"]+)\"", r"\1", each["run"]).split()
            if words[0] == "make":
                assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), place
            else:
                asked = subprocess.run([sys.executable, *words[1:], "--help"], cwd=ROOT, capture_output=True, text=True)
                assert asked.returncode == 0 and "usage:" in asked.stdout, (place, asked.stderr)


def test_least_permissions():
    for place, workflow, each in jobs():
        assert workflow["permissions"] == {}, place
        writes = {key for key, value in each["permissions"].items() if value == "write"}
        allowed = {"report.comment": {"pull-requests"}, "comment.comment": {"pull-requests"}, "publish.publish": {"contents", "actions"}}
        assert writes == allowed.get(place, set()), place


def test_time_and_number_of_runs_are_bounded():
    for place, workflow, each in jobs():
        assert 0 < each["timeout-minutes"] <= 180, place
        assert "group" in workflow["concurrency"] and "cancel-in-progress" in workflow["concurrency"], place


def test_no_checkout_leaves_its_credentials_behind():
    found = [(place, each["with"]) for place, each in steps() if each.get("uses", "").startswith("actions/checkout@")]
    assert len(found) == len(jobs()) and all(given["persist-credentials"] is False for _, given in found)


def test_what_writes_executes_no_code_of_the_pull_request():
    for place in ("report.comment", "comment.comment", "publish.publish"):
        checkouts = [each["with"] for each in job(place)["steps"] if each.get("uses", "").startswith("actions/checkout@")]
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
    read_step = ("report.pipeline", "python -m pipeline github pull")
    retrain_step = ("retrain.retrain", "python -m pipeline github run --force")
    write_step = ("publish.publish", 'python -m pipeline github publish --results "$RUNNER_TEMP/results"')
    assert found == {
        "DVC_READ_USER": {read_step}, "DVC_READ_PASSWORD": {read_step}, "DVC_WRITE_USER": {write_step}, "DVC_WRITE_PASSWORD": {write_step},
        "MLFLOW_TRACKING_USERNAME": {retrain_step}, "MLFLOW_TRACKING_PASSWORD": {retrain_step},
    }
    assert job("publish.publish")["environment"] == "publish"
    for place, workflow, each in jobs():
        assert "secrets." not in str({**each, "steps": []}) + str(workflow.get("env")), place


def test_where_it_runs_is_a_variable():
    for place in ("report.pipeline", "retrain.retrain"):
        assert "vars.RUNNER" in job(place)["runs-on"] and "'ubuntu-latest'" in job(place)["runs-on"]
    assert "head.repo.full_name == github.repository" in job("report.pipeline")["runs-on"]  # a fork's code stays off one's own machines


def test_tests_run_on_each_system_or_say_why_not():
    assert job("tests.test")["strategy"]["matrix"]["system"] == ["ubuntu-latest", "macos-latest"]
    assert "# Windows: " in (FOLDER / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert job("tests.test")["name"].startswith(report.TESTS)


def test_slots_for_pages():
    found = [each for each in read(ACTIONS[0])["runs"]["steps"] if each.get("id", "").startswith("page")]
    assert [each["id"] for each in found] == [f"page{slot:02}" for slot in range(1, pages.SLOTS + 1)]
    for each in found:
        assert each["with"]["archive"] is False and each["with"]["path"] == f"scratch/pages/{each['id'][4:]}/*.html" and each["with"]["path"] in each["if"]


# The faults of the first workflow, one by one.


def order(place: str) -> list[str]:
    return [each.get("run") or each["uses"] for each in job(place)["steps"]]


def test_fault_credentials_after_the_training():
    ran = order("report.pipeline")
    assert ran.index("python -m pipeline github pull") < ran.index("python -m pipeline github run")


def test_fault_only_dvc_lock_committed():
    source = Path(publish.__file__).read_text(encoding="utf-8")
    assert "commit-tree" in source  # one commit of both: tests/test_publish.py looks into it
    assert not re.search(r"git (add|commit|push)", "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS))


def test_fault_local_paths_and_plots_in_the_comment():
    for path in [*ALL, *Path(report.__file__).parent.glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert "plots diff" not in text and "file://" not in text and "--publish=true" not in text, path


def test_fault_a_new_comment_for_each_push_and_nothing_on_failure():
    assert '"comment", "update"' in (Path(report.__file__).parent / "post.py").read_text(encoding="utf-8")
    assert "!cancelled()" in job("report.comment")["if"] and "needs" in job("report.comment")
    ran = order("report.pipeline")
    assert ran[-1] == "python -m pipeline github verdict"
    between = job("report.pipeline")["steps"][ran.index("python -m pipeline github run") + 1 :]
    assert any(each.get("uses", "").startswith("./.github/actions/pages") and "if" not in each for each in between)


def test_fault_secrets_in_the_tracked_configuration():
    tracked = subprocess.run(["git", "ls-files", ".dvc"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert ".dvc/config.local" not in tracked
    for path in (ROOT / each for each in tracked):
        assert not re.search(r"password|secret|token|access_key", path.read_text(encoding="utf-8"))
    for path in [*ALL, *Path(report.__file__).parent.glob("*.py")]:
        assert not re.search(r"dvc[\", ]+remote|remote modify|config\.local", path.read_text(encoding="utf-8")), path


def test_fault_a_bot_on_main():
    for path in WORKFLOWS:
        assert not re.search(r"gh pr merge|auto-?merge|enablePullRequestAutoMerge", path.read_text(encoding="utf-8"))
    # tests/test_publish.py: on main nothing is committed, and a pull request never names the default branch as its own


def test_fault_dependencies_that_leave_out_code():
    stages = read(ROOT / "dvc.yaml")["stages"]
    for each in (stage.get("do", stage) for stage in stages.values()):
        assert {"notebooks/digits", "pipeline/stage", "requirements.txt"} <= set(each["deps"])


# What the steps do, where no other test has it.


def test_pages_fill_the_slots_what_changed_first(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "SCRATCH", tmp_path / "scratch")
    monkeypatch.setenv("GITHUB_RUN_ID", "42")
    monkeypatch.setenv("GITHUB_RUN_ATTEMPT", "3")
    names = [f"model{number:02}" for number in range(24)]
    (tmp_path / "reports").mkdir()
    for each in [*names, "Not-A-Name"]:
        (tmp_path / "reports" / f"{each}.html").write_text(each)
    recorded = {f"reports/{each}.html": lock.Output(f"reports/{each}.html", "0" * 32, 1) for each in names}
    changed = {"reports/model20.html": lock.Output("reports/model20.html", "1" * 32, 1)}
    monkeypatch.setattr(lock, "at", lambda *_: recorded | changed)
    monkeypatch.setattr(lock, "here", lambda *_: recorded)
    assert pages.lay_out("main", tmp_path) == ["model19", "model21", "model22", "model23"]
    assert [path.name for path in (tmp_path / "scratch" / "pages" / "01").iterdir()] == ["model20-42-3.html"]
    address = "https://github.com/owner/name/actions/runs/42/artifacts/5"
    given = f'{{"page01": {{"outputs": {{"artifact-url": "{address}"}}}}, "page02": {{"outputs": {{"artifact-url": "javascript:x"}}}}, "page03": {{}}}}'
    assert pages.links(given) == {"model20": address}
    assert pages.links("") == {}


def test_steps_talk_to_their_workflow(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    step.output("ended", "failed")
    assert (tmp_path / "output").read_text(encoding="utf-8") == "ended=failed\n"
    for ended, code in (("passed", 0), ("failed", 2), ("", 2)):
        done = subprocess.run([sys.executable, "-m", "pipeline", "github", "verdict", "--ended", ended], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == code


def test_the_report_is_written_and_summarised(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "SCRATCH", tmp_path / "scratch")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    monkeypatch.setattr(report, "LOG", tmp_path / "run.log")
    report.LOG.write_text("what the run printed", encoding="utf-8")
    given = []

    def run(command, **_):
        given.append(command)
        Path(command[command.index("--out") + 1]).write_text("the first line.\n\n| a |\n", encoding="utf-8")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(report.subprocess, "run", run)
    file = report.write("main", "passed", {"cnn": "https://x"})
    assert file.read_text(encoding="utf-8") == "the first line.\n\n| a |\n"
    assert (tmp_path / "summary.md").read_text(encoding="utf-8").startswith("the first line.")
    assert given[0][given[0].index("--tests") + 1] == "passed" and given[0][given[0].index("--base") + 1] == "main"
    assert given[0][given[0].index("--outcome") + 1] == str(tmp_path / "run.log")


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins for Python are programs of a POSIX system")
def test_a_run_notes_how_it_ended_and_keeps_what_it_printed(tmp_path, monkeypatch):
    monkeypatch.setattr(step, "SCRATCH", tmp_path)
    monkeypatch.setattr(report, "LOG", tmp_path / "run.log")
    monkeypatch.setattr(report.sys, "executable", shutil.which("true") or "true")
    assert report.run(force=False) == 0 and report.LOG.read_text() == ""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho failed here; exit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(report.sys, "executable", str(script))
    assert report.run(force=True) == 1 and report.LOG.read_text() == "failed here\n"


def test_a_base_that_is_not_there():
    assert report.known("0" * 40) == report.known("") == report.known("--all") == ""
    assert re.fullmatch(r"[0-9a-f]{40}", report.known("HEAD"))
