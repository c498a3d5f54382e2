"""Setting a repository up: the real gh, before a stand-in for GitHub's API that it reaches as a proxy."""

import json
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from projects import command
from world import body_of

pytestmark = pytest.mark.skipif(not shutil.which("gh"), reason="GitHub's program gh is not installed (apt install gh)")
ENVIRONMENT, POLICIES = "/environments/publish", "/environments/publish/deployment-branch-policies"


class GitHub(ThreadingHTTPServer):
    """A repository owner/name that was just forked; `said` are the changes that were asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.said: list[tuple[str, str]] = []
        self.workflows = [{"id": 1, "name": "retrain", "state": "disabled_fork"},
                          {"id": 2, "name": "tests", "state": "active"}]
        self.things = {"": {"default_branch": "main"}, "/actions/permissions": {"enabled": False},
                       "/actions/permissions/workflow": {"default_workflow_permissions": "write"}, "/rulesets": []}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def answer(self, method: str, path: str, body) -> tuple[int, object]:
        if method != "GET":
            self.said.append((method, path))
        if path == "/actions/workflows":
            return 200, {"workflows": self.workflows}
        if found := re.fullmatch(r"/actions/workflows/(\d+)/enable", path):
            self.workflows[int(found[1]) - 1]["state"] = "active"
            return 204, None
        if path == POLICIES and method == "POST":
            self.things[path]["branch_policies"].append({"id": 9, "name": body["name"]})
            return 200, body
        if path == "/rulesets" and method == "POST":
            self.things[path].append(body)
            return 201, body
        if method == "GET":
            return (200, self.things[path]) if path in self.things else (404, {"message": "Not Found"})
        if method == "DELETE":
            return 204, None
        self.things[path if method == "PUT" or path == "/pages" else f"{path}/{body['name']}"] = body
        if path == ENVIRONMENT:
            self.things[POLICIES] = {"branch_policies": []}
        return 201, body | ({"html_url": "https://owner.github.io/name/"} if path == "/pages" else {})


class Handler(BaseHTTPRequestHandler):
    def handle_any(self) -> None:
        content = body_of(self)
        path = urlsplit(self.path).path.removeprefix("/repos/owner/name")
        status, said = self.server.answer(self.command, path, json.loads(content or "null"))
        content = b"" if said is None else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def github():
    server = GitHub()
    yield server
    server.shutdown()


@pytest.fixture
def asked(single, github, tmp_path):
    """`nbproof github setup` in a project whose origin is that repository."""
    subprocess.run(["git", "remote", "add", "origin", "git@github.localhost:owner/name.git"], cwd=single, check=True)
    (single / ".github" / "workflows").mkdir(parents=True)
    (single / ".github" / "workflows" / "report.yml").touch()
    there = {"GH_HOST": "github.localhost", "GH_TOKEN": "token", "GH_CONFIG_DIR": str(tmp_path / "gh"),
             "HTTP_PROXY": f"http://127.0.0.1:{github.server_port}", "http_proxy": "", "NO_PROXY": "", "no_proxy": ""}
    words = (sys.executable, "-m", "nbproof", "github", "setup")
    return lambda *more, **variables: command(single, *words, *more, **there | variables)


def test_what_is_missing_is_said_and_then_set(asked, github):
    done = asked("--check")
    assert done.returncode == 1 and github.said == [], done.stdout
    assert done.stdout.splitlines() == [
        "owner/name, default branch main:", "missing  Actions run: they are switched off",
        "missing  workflows and their schedules are on: retrain",
        "missing  a workflow's token only reads, unless a job asks for more: it may write everywhere",
        "missing  the environment publish admits main alone: it admits every branch, or is not there",
        "missing  a merge into main waits for pipeline and test (ubuntu-latest): no rule says so",
        "missing  Pages are built by a workflow: they are off"]
    done = asked("--yes")
    assert done.returncode == 0 and done.stdout.count("done     ") == 6, done.stdout
    assert github.things["/actions/variables/PAGES_URL"]["value"] == "https://owner.github.io/name/"
    assert github.things["/rulesets"][0]["rules"][0]["parameters"]["required_status_checks"] == [
        {"context": "pipeline"}, {"context": "test (ubuntu-latest)"}]
    before = len(github.said)
    done = asked("--check")
    assert done.returncode == 0 and "missing" not in done.stdout and len(github.said) == before, done.stdout


def test_without_gh_or_a_repository_it_is_one_sentence(asked, single, tmp_path):
    (tmp_path / "git alone").mkdir()
    (tmp_path / "git alone" / "git").symlink_to(shutil.which("git"))
    done = asked("--check", PATH=str(tmp_path / "git alone"))
    assert done.returncode == 2 and "install it (https://cli.github.com)" in done.stdout, done.stdout
    subprocess.run(["git", "remote", "set-url", "origin", "../elsewhere"], cwd=single, check=True)
    done = asked("--check")
    assert done.returncode == 2 and done.stdout.startswith("The git remote origin is no repository on GitHub")


def test_a_refusal_of_github_is_told(asked, github):
    github.things.pop("")
    done = asked("--check")
    assert done.returncode == 2 and "GitHub did not take GET / of owner/name" in done.stdout, done.stdout


def test_pages_of_a_branch_become_those_of_a_workflow(asked, github):
    github.things["/pages"] = {"build_type": "legacy", "html_url": "https://owner.github.io/name/"}
    assert "missing  Pages are built by a workflow: they are built from a branch" in asked("--check").stdout
    assert asked("--yes").returncode == 0 and ("PUT", "/pages") in github.said
    assert github.things["/pages"]["build_type"] == "workflow"
    assert github.things["/actions/variables/PAGES_URL"]["value"] == "https://owner.github.io/name/"


def test_a_project_without_workflows_gets_no_rule_that_nothing_meets(asked, github, single):
    (single / ".github" / "workflows" / "report.yml").unlink()
    done = asked("--yes")
    assert done.returncode == 2 and "There is no .github/workflows/report.yml here" in done.stdout, done.stdout
    assert github.said == []


def test_a_change_that_github_does_not_know_is_no_success(asked, github, monkeypatch):
    answer = github.answer
    monkeypatch.setattr(github, "answer", lambda method, path, body: (404, {"message": "Not Found"})
                        if (method, path) == ("PUT", "/actions/permissions") else answer(method, path, body))
    done = asked("--yes")
    assert done.returncode == 2 and "GitHub did not take PUT /actions/permissions" in done.stdout, done.stdout
