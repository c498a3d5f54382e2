"""The workflows and those of a new project: their form, and that what they call exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from github_callers import callers
from projects import ROOT
from ruamel.yaml import YAML
from typer.main import get_command

from nbproof.cli import app

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path: Path) -> dict:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def steps(path: Path) -> list[list[dict]]:
    return [job["steps"] for job in read(path)["jobs"].values()]


@pytest.fixture(scope="module")
def called(tmp_path_factory) -> Path:
    """The workflows of a new project, which are called at the commit of the template."""
    folder = tmp_path_factory.mktemp("project")
    commit = callers(folder, "https://github.com/owner/nbproof.git")
    for path in (folder / ".github" / "workflows").glob("*.yml"):
        path.write_text(path.read_text().replace(f"@{commit}", f"@{'0a' * 20}"))
    return folder / ".github"


@pytest.mark.parametrize(("source", "answers"), [
    ("file:///somewhere/nbproof", {}), ("https://git.company.com/owner/nbproof", {}),
    ("https://github.com/owner/nbproof", {"vendor": True})])
def test_what_github_cannot_call_is_copied(tmp_path, source, answers):
    callers(tmp_path, source, **answers)
    for path in (tmp_path / ".github" / "workflows").glob("*.yml"):
        assert path.read_text() == (ROOT / ".github" / "workflows" / path.name).read_text()


@pytest.mark.parametrize("whose", ["nbproof", "project"])
def test_github_and_zizmor_find_nothing(called, whose):
    """The form; pins, permissions, templates in shells, secrets, triggers: the strictest rules."""
    folder = ROOT / ".github" if whose == "nbproof" else called
    paths = sorted((folder / "workflows").glob("*.yml"))
    for words in (["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *paths],
                  ["zizmor", "--offline", "--no-progress", "--strict-collection",
                   "--persona=auditor", "--color=never", folder]):
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
    assert "No findings" in done.stdout


def test_what_is_called_grants_and_gives_what_the_called_workflow_needs(called):
    """GitHub refuses a run whose nested job asks for more than its caller has."""
    for path in (called / "workflows").glob("*.yml"):
        for job in read(path)["jobs"].values():
            if not (uses := job.get("uses")):
                continue
            name = re.fullmatch(r"owner/nbproof/\.github/workflows/(\w+\.yml)@(0a){20}", uses)[1]
            home = read(ROOT / ".github" / "workflows" / name)
            [nested] = home["jobs"].values()
            assert job["permissions"] == nested["permissions"]
            declared = (home["on"]["workflow_call"] or {}).get("secrets", {})
            assert job.get("secrets", {}).keys() == declared.keys()
            assert read(path)["name"] == home["name"]


def test_what_they_run_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    slow = re.search(r"^SLOW = (.*)$", makefile, re.M).group(1).split()
    targets = {*re.findall(r"^([a-z-]+):", makefile, re.M), *(f"test-{room}" for room in slow)}
    runs = "\n".join(step["run"] for path in WORKFLOWS for job in steps(path) for step in job
                     if "run" in step)
    for words in re.findall(r"\.venv/bin/nbproof ([^|>\n]+)", runs):
        known, names = get_command(app), words.partition(" #")[0].split()
        while hasattr(known, "commands"):
            known = known.commands[names.pop(0)]
        options = {option for parameter in known.params
                   for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in names if word.startswith("--")} <= options, words
    assert {*re.findall(r"(?m)^make ([a-z-]+)", runs)} <= targets
    home = ROOT / ".github" / "workflows" / "slow.yml"
    assert read(home)["jobs"]["slow"]["strategy"]["matrix"]["room"] == slow


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_is_installed_gets_no_secret(path):
    """The set-up, which runs code of packages, is a step without a token, before those with one."""
    for job in steps(path):
        first = next((step for step in job if "make setup" in step.get("run", "")), None)
        for step in job[: job.index(first) + 1 if first else 0]:
            given = str({**step.get("env", {}), **step.get("with", {})})
            assert "secrets." not in given and "github.token" not in given, step


def test_the_docs_name_each_setting_that_workflows_read():
    text = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    page = (ROOT / "docs" / "github.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z0-9_]{4,})`", page)) - {"GITHUB_TOKEN"}
    assert named == set(re.findall(r"(?:secrets|vars)\.([A-Z0-9_]+)", text))


def test_the_small_environment_is_enough():
    """comment and publish install requirements/review.txt alone, which has none of these."""
    absent = ("torch", "mlflow", "papermill", "nbconvert", "jupyterlab", "matplotlib", "copier",
              "sklearn", "nbdime", "ipykernel", "fastapi")
    code = (f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
            "import nbproof.cli, nbproof.review.comment, nbproof.review.publish")
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["comment", "publish", "pages"])
def test_what_writes_executes_no_code_of_the_pull_request(name):
    [job] = steps(ROOT / ".github" / "workflows" / f"{name}.yml")
    for step in job:
        if "actions/checkout@" in step.get("uses", ""):
            assert "ref" not in step["with"]  # in a workflow_run that is the default branch
