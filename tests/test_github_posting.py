"""The comment on a pull request, against a stand-in for GitHub's API on loopback."""

import hashlib
import json
import os
import re
import shutil
import ssl
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from nbproof.github import post
from nbproof.github.api import Api
from nbproof.github.command import app
from nbproof.github.sanitise import BREAK, sanitised
from nbproof.notebook.errors import UserError

BOT = "github-actions[bot]"
HEAD = "ab" * 20


@pytest.fixture(autouse=True)
def in_the_small_environment(monkeypatch):
    """The job installs requirements/review.txt alone, which has none of these."""
    for name in ("torch", "mlflow", "papermill", "nbconvert", "jupyterlab", "matplotlib", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)


class GitHub:
    """What the stand-in holds: comments, pull requests, and the faults it gives before it answers as it should."""

    def __init__(self) -> None:
        self.comments: list[dict] = []
        self.pulls: list[dict] = []
        self.faults: list[tuple[str, int, dict]] = []  # method, status, headers
        self.longest = 65_536
        self.login: str | None = None  # None: a workflow's own token, which may not ask who it is
        self.requests: list[tuple[str, str]] = []
        self.lose_answer = False

    def comment(self, body: str, login: str = "someone") -> dict:
        self.comments.append({"id": len(self.comments) + 1, "body": body, "user": {"login": login}})
        return self.comments[-1]

    def ours(self) -> list[dict]:
        return [
            each for each in self.comments if post.MARK in each["body"] and each["user"]["login"] == (self.login or BOT)
        ]

    def answer(self, method: str, path: str, query: dict, body: dict | None) -> tuple[int, object, dict]:
        for fault in self.faults:
            if fault[0] == method and "/user" not in path:
                self.faults.remove(fault)
                return fault[1], {"message": f"fault {fault[1]}"}, fault[2]
        size, page = int(query.get("per_page", ["30"])[0]), int(query.get("page", ["1"])[0])
        window = slice((page - 1) * size, page * size)
        if path == "/user":
            return (
                (200, {"login": self.login}, {})
                if self.login
                else (403, {"message": "Resource not accessible by integration"}, {})
            )
        path = path.removeprefix("/repos/owner/name")
        if path == "/pulls":
            return 200, self.pulls[window], {}
        if body is not None and len(body.get("body", "")) > self.longest:
            return (
                422,
                {
                    "message": "Validation Failed",
                    "errors": [f"body is too long (maximum is {self.longest} characters)"],
                },
                {},
            )
        if path == "/issues/7/comments":
            if method == "GET":
                return 200, self.comments[window], {}
            made = self.comment(body["body"], self.login or BOT)
            if self.lose_answer:
                self.lose_answer = False
                return 502, {"message": "Bad gateway"}, {}
            return 201, made | {"html_url": "https://github.com/owner/name/pull/7#issuecomment-1"}, {}
        found = [each for each in self.comments if path == f"/issues/comments/{each['id']}"]
        if found and method == "PATCH":
            found[0]["body"] = body["body"]
            return 200, found[0] | {"html_url": "https://github.com/owner/name/pull/7#issuecomment-1"}, {}
        return 404, {"message": "Not Found"}, {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self) -> None:
        address = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.github.requests.append((self.command, address.path))
        path = address.path.removeprefix("/api/v3")
        status, answer, headers = self.server.github.answer(
            self.command, path, parse_qs(address.query), json.loads(content) if content else None
        )
        data = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = serve

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.github = GitHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def github(server) -> GitHub:
    return server.github


@pytest.fixture
def api(server) -> Api:
    return Api(f"http://127.0.0.1:{server.server_port}", "owner/name", "secret-token", pause=0)


@pytest.fixture(autouse=True)
def no_cml(monkeypatch, tmp_path):
    """Without CML, as on a machine where its binary cannot be had."""
    which = shutil.which
    monkeypatch.setattr(post.shutil, "which", lambda name, **given: None if name == "cml" else which(name, **given))


def test_creates_then_updates_one_comment(github, api, capsys):
    assert "created" in post.post(api, 7, "first")
    assert "updated" in post.post(api, 7, "second")
    assert [each["body"].partition("\n")[0] for each in github.ours()] == ["second"]
    assert "CML is not on the PATH" in capsys.readouterr().out


def test_foreign_comments_with_the_same_marks_are_left_alone(github, api):
    copied = github.comment(f"mine?\n{post.MARK}", "attacker")["body"]
    post.post(api, 7, "report")
    assert github.comments[0]["body"] == copied
    assert len(github.ours()) == 1
    post.post(api, 7, "again")
    assert len(github.comments) == 2 and github.comments[1]["body"].startswith("again")


def test_own_comment_is_that_of_the_token(github, api):
    github.login = "reviewer"
    github.comment(f"the bot's\n{post.MARK}", BOT)
    post.post(api, 7, "report")
    assert [each["user"]["login"] for each in github.comments] == [BOT, "reviewer"]


@pytest.mark.parametrize("before", [29, 30, 31, 100, 250])
def test_finds_its_comment_behind_many_others(github, api, before):
    for number in range(before):
        github.comment(f"comment {number}")
    post.post(api, 7, "first")
    for number in range(120):
        github.comment(f"later {number}")
    post.post(api, 7, "second")
    assert [each["body"].partition("\n")[0] for each in github.ours()] == ["second"]


def test_refused_in_one_sentence(github, api):
    github.faults = [("POST", 403, {})]
    with pytest.raises(UserError, match="comment on pull request 7.*pull-requests: write.*403: fault 403"):
        post.post(api, 7, "report")
    assert not github.comments


def test_too_long_is_posted_shorter(github, api, capsys):
    github.longest = 20_000
    folds = [
        f"<details>\n<summary>fold {number}</summary>\n\n| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 200 + "\n</details>"
        for number in range(20)
    ]
    post.post(api, 7, "\n\n".join(["the headline", *folds]))
    body = github.ours()[0]["body"]
    assert body.startswith("the headline") and post.NOTE in body and len(body) <= 20_000
    assert body.count("<details>") == body.count("</details>") == 3
    assert "422" in capsys.readouterr().out


def test_always_too_long_ends(github, api):
    github.longest = 10
    with pytest.raises(UserError, match="422"):
        post.post(api, 7, "report")


@pytest.mark.parametrize(
    "faults",
    [
        [("GET", 500, {})],
        [("POST", 500, {}), ("POST", 502, {})],
        [("PATCH", 500, {}), ("GET", 429, {"Retry-After": "1"})],
        [("GET", 503, {}), ("GET", 403, {"Retry-After": "1"})],
    ],
)
def test_passing_faults_are_tried_again(github, api, faults):
    github.faults = faults
    post.post(api, 7, "report")
    assert len(github.ours()) == 1


def test_a_lost_answer_makes_no_second_comment(github, api):
    github.lose_answer = True
    post.post(api, 7, "report")
    assert len(github.ours()) == 1


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_trying_again_is_bounded(github, api, method):
    github.faults = [(method, 500, {})] * 100
    with pytest.raises(UserError, match="500: fault 500"):
        post.post(api, 7, "report")
    assert sum(each == method for each, _ in github.requests) <= 50


def test_a_rate_limit_is_waited_for_a_minute_at_most(github, api, monkeypatch):
    github.faults, waits = [("GET", 403, {"Retry-After": "3600"})] * 100, []
    monkeypatch.setattr("time.sleep", waits.append)
    with pytest.raises(UserError, match="403: fault 403"):
        api.call("GET", "/pulls")
    assert len(github.requests) == 5 and 0 < sum(waits) <= 60


def test_no_server(api):
    with pytest.raises(UserError, match="no answer"):
        post.post(Api("http://127.0.0.1:9", "owner/name", "token", pause=0), 7, "report")


def test_a_token_does_not_follow_a_redirect(github, api, server):
    seen = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        github.faults = [("GET", 302, {"Location": f"http://localhost:{other.server_port}/"})]
        assert api.call("GET", "/pulls") == []
        thread.join()
    assert seen == [None]


def pull(number: int, sha: str, repository: str = "owner/name") -> dict:
    return {
        "number": number,
        "head": {"sha": sha, "ref": "topic", "repo": {"full_name": repository}},
        "base": {"ref": "main"},
    }


def test_the_pull_request_is_proven_by_its_head(github, api):
    github.pulls = [pull(number, f"{number:040x}") for number in range(1, 150)] + [pull(7, HEAD, "fork/name")]
    assert [each["number"] for each in api.pull_requests(HEAD)] == [7]
    assert api.pull_requests("cd" * 20) == []
    github.pulls.append(pull(9, HEAD))
    assert [each["number"] for each in api.pull_requests(HEAD)] == [7, 9]
    with pytest.raises(UserError, match="40 hex"):
        api.pull_requests("main")


@pytest.fixture
def command(server, tmp_path, monkeypatch):
    """The step of the workflow, with what the workflow sets, on a report of this text."""
    for name, value in {
        "GITHUB_API_URL": f"http://127.0.0.1:{server.server_port}",
        "GITHUB_REPOSITORY": "owner/name",
        "GITHUB_TOKEN": "secret-token",
        "GITHUB_SERVER_URL": "https://github.com",
        "HEAD_SHA": HEAD,
        "RUN_ID": "42",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }.items():
        monkeypatch.setenv(name, value)

    def run(report: str):
        (tmp_path / "report.md").write_text(report, encoding="utf-8")
        return CliRunner().invoke(app, ["post", "--report", str(tmp_path / "report.md")])

    return run


def test_the_command_posts_a_harmless_report(command, github):
    github.pulls = [pull(7, HEAD, "fork/name")]
    page = "[page](<https://github.com/owner/name/actions/runs/42/artifacts/1>)"
    done = command(f"hello @octocat {page} [bad](https://evil.example)")
    assert done.exit_code == 0, done.output
    body = github.ours()[0]["body"]
    assert "@octocat" not in body and page in body and "https://evil" not in body


def test_the_command_refused_still_writes_the_summary(command, github, tmp_path):
    github.pulls, github.faults = [pull(7, HEAD)], [("POST", 403, {})]
    done = command("the report")
    assert isinstance(done.exception, UserError) and "in the job's summary" in str(done.exception)
    assert "the report" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "secret-token" not in f"{done.output}{done.exception}"


def test_the_command_posts_nothing_for_an_outdated_run(command, github):
    github.pulls = [pull(7, "cd" * 20)]
    done = command("the report")
    assert done.exit_code == 0 and "nothing posted" in done.output and not github.comments


def test_the_command_believes_no_link_as_a_report(command, github, tmp_path):
    (tmp_path / "elsewhere.md").write_text("a secret")
    (tmp_path / "report.md").symlink_to(tmp_path / "elsewhere.md")
    done = CliRunner().invoke(app, ["post", "--report", str(tmp_path / "report.md")])
    assert done.exit_code == 0 and not github.comments
    github.pulls = [pull(7, HEAD)]
    done = CliRunner().invoke(app, ["post", "--report", str(tmp_path / "report.md")])
    body = github.ours()[0]["body"]
    assert "secret" not in body and body.startswith("**no report**"), done.output


def test_cml_is_taken_by_its_checksum(tmp_path, monkeypatch, inside):
    program = b"#!/bin/sh\n"
    monkeypatch.setattr("requests.get", lambda *_, **__: SimpleNamespace(content=program))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("GITHUB_PATH", str(tmp_path / "path"))
    (tmp_path / "project.yaml").write_text("name: tiny\nmetric: {key: rmse, goal: min}\n")
    inside(tmp_path)
    assert "not asked for" in CliRunner().invoke(app, ["cml"]).output
    done = CliRunner().invoke(app, ["cml", "--sha256", "0" * 64])
    assert "does not have the checksum" in str(done.exception) and not (tmp_path / "path").exists()
    assert CliRunner().invoke(app, ["cml", "--sha256", hashlib.sha256(program).hexdigest()]).exit_code == 0
    assert (Path((tmp_path / "path").read_text().strip()) / "cml").read_bytes() == program


# A stand-in for CML that does what its `comment update` does: it reads the first 30 comments and takes the last with
# its watermark, whoever wrote it.
STAND_IN_FOR_CML = """
import json, os, re, sys, urllib.request
options = dict(each[2:].split("=", 1) for each in sys.argv[3:] if each.startswith("--"))
assert sys.argv[1:3] == ["comment", "update"] and options["publish"] == "false", sys.argv
assert os.environ["ITERATIVE_DO_NOT_TRACK"] == "1"
if os.environ.get("CML_BREAKS"):
    sys.exit("broken: " + os.environ["REPO_TOKEN"] + "\\n" + "    at frame (file.js:1)\\n" * 50)
api = os.environ["CML_API"] + "/repos/" + options["repo"].split("/", 3)[3]
def call(method, path, body=None):
    request = urllib.request.Request(api + path, body and json.dumps(body).encode(), method=method)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())
title = "CML watermark " + options["watermark-title"]
issue = options["target"].replace("pr/", "/issues/") + "/comments"
marked = [each for each in call("GET", issue) if re.search('watermark.png#[0-9a-f]+ "' + title + '"', each["body"])]
mark = '![](https://cml.dev/watermark.png#abc "' + title + '")'
body = {"body": open(sys.argv[-1], encoding="utf-8").read() + "\\n\\n" + mark}
call("PATCH", f"/issues/comments/{marked[-1]['id']}", body) if marked else call("POST", issue, body)
"""


@pytest.fixture
def cml(monkeypatch, tmp_path, server) -> None:
    if os.name == "nt":
        pytest.skip("the stand-in for cml is a script with a #! line, which Windows does not run")
    script = tmp_path / "cml"
    script.write_text(f"#!{sys.executable}\n{STAND_IN_FOR_CML}", encoding="utf-8")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CML_API", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(post.shutil, "which", lambda name, **_: str(script) if name == "cml" else None)


def test_cml_posts_and_updates(github, api, cml):
    assert "by CML" in post.post(api, 7, "first")
    assert "by CML" in post.post(api, 7, "second")
    assert [each["body"].partition("\n")[0] for each in github.ours()] == ["second"] and len(github.comments) == 1


def test_cml_is_passed_over_where_it_would_take_anothers_comment(github, api, cml):
    github.comment(f'![](https://cml.dev/watermark.png#abc "CML watermark {post.TITLE}")', "attacker")
    assert "GitHub's API" in post.post(api, 7, "report")
    assert [each["user"]["login"] for each in github.comments] == ["attacker", BOT]
    assert github.comments[0]["body"].startswith("![]")


def test_cml_is_passed_over_where_it_would_not_find_its_comment(github, api, cml):
    for number in range(40):
        github.comment(f"comment {number}")
    post.post(api, 7, "first")
    assert "GitHub's API" in post.post(api, 7, "second")
    assert len(github.comments) == 41 and len(github.ours()) == 1


def test_cml_that_breaks_is_replaced(github, api, cml, monkeypatch, capsys):
    monkeypatch.setenv("CML_BREAKS", "1")
    assert "GitHub's API" in post.post(api, 7, "report")
    monkeypatch.delenv("CML_BREAKS")
    assert "by CML" in post.post(api, 7, "again") and len(github.comments) == 1  # it takes up what the API posted
    said = capsys.readouterr().out
    assert len(github.ours()) == 1 and "exit code 1: broken: ***)" in said


def test_the_real_cml_leaves_one_comment(server, github, tmp_path, monkeypatch):
    monkeypatch.undo()
    if not shutil.which("cml"):
        pytest.skip(
            "there is no `cml` on the PATH (npm's registry may lack @dvcorg/cml; its releases are binaries on GitHub)"
        )
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl to make the stand-in's certificate with")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("GITHUB_SHA", HEAD)
    url = f"https://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("GITHUB_SERVER_URL", url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    api = Api(f"{url}/api/v3", "owner/name", "secret-token", pause=0)
    for report in ("first", "second"):
        assert "by CML" in post.post(api, 7, report)
    assert len(github.comments) == 1 and github.comments[0]["body"].startswith("second")


RUN = "https://github.com/owner/name/actions/runs/42"
CHART = (
    '```mermaid\n%%{init: {"themeVariables": {"xyChart": {"plotColorPalette": "#8c959f, #0969da"}}}}%%\n'
    'xychart-beta\n    title "cnn"\n'
    '    x-axis "epoch" 1 --> 10\n    y-axis "validation accuracy" 0.9 --> 1.0\n    line [0.91, 0.95]\n```'
)


@pytest.mark.parametrize(
    "kept",
    [
        "champion: `cnn` 0.9931 → 0.9940; 3 of 5 notebooks ran again; all tests passed.",
        "### A heading\n\n| a | b |\n|:---|---:|\n| `x` | **1** |",
        f"[open](<{RUN}/artifacts/7>)",
        CHART,
        "<details>\n<summary><code>cnn</code> &lt;3&gt; &amp;</summary>\n\n"
        "```diff\n@@ cell 7, Keep @@\n- 0.1\n+ 0.2\n```\n</details>",
    ],
)
def test_what_a_report_needs_is_kept(kept):
    assert sanitised(kept, (RUN,)) == kept


@pytest.mark.parametrize(
    "hostile",
    [
        "@octocat",
        "@@octocat",
        "\\@octocat",
        "&#64;octocat",
        "&commat;octocat",
        "&#x40;octocat",
        "owner/name#12",
        "\\#12",
        "&#35;12",
        "GH-12",
        "![x](https://a.example/i.png)",
        '![](https://cml.dev/watermark.png#ab "CML watermark pipeline-report")',
        "[x](https://a.example)",
        "[x](//a.example)",
        "[x][y]\n\n[y]: https://a.example",
        "https://a.example",
        "h&#116;tps&#58;//a.example",
        "www.a.example",
        "<https://a.example>",
        "mailto:a@b.example",
        f"[x]({RUN}/../../../../settings)",
        f"[x]({RUN}/%2e%2E/.%2e/settings)",
        f"[x]({RUN}0/artifacts/1)",
        "<img src=x onerror=y>",
        "<a href=x>y</a>",
        "<!-- nbproof: report -->",
        "<details open onclick=x>",
        "```geojson\n{}\n```",
        "- ```mermaid\n  graph TD\n  ```",
        '```mermaid\nxychart-beta\n    line [1]\n    click A href "https://a.example"\n```',
        '```mermaid\ngraph TD; click A "https://a.example"\n```',
        "~~~stl\nsolid\n~~~",
        "\u202eevil",
        "\u200bx",
        "x\x00y",
    ],
)
def test_hostile_text_is_broken(hostile):
    safe = sanitised(hostile, (RUN,))
    assert safe != hostile
    acting = [
        r"@\w",
        r"#\d",
        r"GH-\d",
        r"https?://",
        r"www\.",
        r"mailto:",
        r"<(?!/?(details|summary|code)>|br>)[\w/!]",
        r"!\[",
        r"\][(\[:]",
        r"&#?x?(64|40|35|58|116);",
        "&commat;",
        r"```(geojson|mermaid)",
        r"~~~stl",
        "\u202e",
        "\x00",
    ]
    for pattern in acting:
        assert not re.search(pattern, safe), (pattern, safe)


def test_a_whole_report_keeps_its_form():
    page = f"[open](<{RUN}/artifacts/7>)"
    fold = "<details>\n<summary><code>cnn</code></summary>\n\n```diff\n- a@b.example\n+ https://c.example\n```\n\n</details>"
    text = "\n\n".join(["champion: `cnn`", f"| notebook | page |\n|---|---|\n| `cnn` | {page} |", fold, CHART, ""])
    safe = sanitised(text, (RUN,))
    assert safe != text and safe.replace(BREAK, "") == text


def test_shortened_between_folds():
    folds = "\n\n".join(
        f"<details>\n<summary>{number}</summary>\n\n```text\na\n\nb\n```\n\n</details>" for number in range(50)
    )
    for limit in range(200, 2000, 50):
        text = post.fitted(f"the headline\n\n{folds}\n\nthe end", limit)
        assert len(text) <= limit and text.startswith("the headline") and text.endswith(post.NOTE)
        assert text.count("<details>") == text.count("</details>") and text.count("```") % 2 == 0
    assert post.fitted("the headline", 200) == "the headline"
