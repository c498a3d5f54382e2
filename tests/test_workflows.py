"""The workflows: their form, that what they call exists; and steps that no other test runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from projects import ROOT
from ruamel.yaml import YAML
from typer.testing import CliRunner

from nbproof.github import command
from nbproof.notebook import files

FOLDER = ROOT / ".github"
CALL, SET_UP = ".venv/bin/nbproof", "make setup"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yml"))
ACTIONS = sorted((FOLDER / "actions").glob("*/action.yml"))


def steps(path: Path) -> list[list[dict]]:
    """The steps of each job of a workflow, or of an action."""
    content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    return [job["steps"] for job in content.get("jobs", {"": content.get("runs")}).values()]


@pytest.mark.parametrize(("schema", "paths"), [
    ("github-workflows", WORKFLOWS), ("github-actions", ACTIONS),
    ("dependabot", [FOLDER / "dependabot.yml"])])
def test_they_have_the_form_that_github_reads(schema, paths):
    words = ["check-jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_nothing():
    """Pins, permissions, templates in shells, secrets, triggers: its strictest rules."""
    words = ["zizmor", "--offline", "--no-progress", "--strict-collection", "--persona=auditor",
             "--color=never", str(FOLDER)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and "No findings" in done.stdout + done.stderr, done.stdout


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=lambda path: path.stem)
def test_what_they_call_exists(path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    slow = re.search(r"^SLOW = (.*)$", makefile, re.M).group(1).split()
    targets = {*re.findall(r"^([a-z-]+):", makefile, re.M), *(f"test-{room}" for room in slow)}
    for step in (step for job in steps(path) for step in job if "run" in step):
        program, *words = step["run"].split()
        if program == "make":
            assert words[0] in targets, step
        elif program == CALL:
            options = [word for word in words if word.startswith("--")]
            names = [word for word in words[:2] if re.fullmatch("[a-z]+", word)]
            shown = subprocess.run([sys.executable, "-m", "nbproof", *names, "--help"],
                                   capture_output=True, text=True, env={"COLUMNS": "200"}).stdout
            assert "Usage" in shown and all(option in shown for option in options), step


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_is_installed_gets_no_secret(path):
    """The set-up, which runs code of packages, is a step without a token, before those with one."""
    for job in steps(path):
        runs = [(step["run"], str(step.get("env"))) for step in job if "run" in step]
        if any("secrets." in variables or "github.token" in variables for _, variables in runs):
            assert runs[0] == (SET_UP, "None")


@pytest.mark.parametrize("name", ["comment", "publish"])
def test_what_writes_executes_no_code_of_the_pull_request(name):
    [job] = steps(FOLDER / "workflows" / f"{name}.yml")
    [checkout] = [step["with"] for step in job if "actions/checkout@" in step.get("uses", "")]
    assert "ref" not in checkout  # in a workflow_run that is the default branch
    assert not any(step.get("uses", "").startswith("./") for step in job)


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
    monkeypatch.setattr("nbproof.review.build", lambda *some, **more: given.append((some, more)) or "the first line.\n")
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
        assert said == "ran -u -m nbproof run --no-fallback --force\n"
