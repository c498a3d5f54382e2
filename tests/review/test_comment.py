"""The comment on a pull request, by gh and by CML, against a part of GitHub's API on loopback."""

import shutil

import pytest
from github_api import GitHub

from nbproof.notebook.errors import UserError
from nbproof.review import comment, gh
from nbproof.review.comment import MARK

WHICH = shutil.which  # some tests replace it
HEAD, REPORT, TESTS = "ab" * 20, ".github/workflows/report.yml", ".github/workflows/tests.yml"


def run(path: str, conclusion: str | None, event: str = "pull_request") -> dict:
    return {"id": 42, "path": path, "conclusion": conclusion, "event": event, "head_sha": HEAD}


def pull(number: int, sha: str = HEAD, repository: str = "owner/name") -> dict:
    return {"number": number, "head": {"sha": sha, "repo": {"full_name": repository}}}


@pytest.fixture
def github(monkeypatch, tmp_path, inside):
    """GitHub with one pull request, 7, and a run of its head."""
    server = GitHub()
    server.pulls, server.runs = [pull(7)], [run(REPORT, "success")]
    server.artifacts = {"42": {"report": tmp_path / "artifact"}}
    (tmp_path / "artifact").mkdir()
    (tmp_path / "project.yaml").write_text("name: tiny\nmetric: {key: rmse, goal: min}\n")
    inside(tmp_path)
    for name, value in server.variables(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(comment.shutil, "which", lambda name, **_: None)  # no CML
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    yield server
    server.shutdown()


@pytest.fixture
def posted(github, tmp_path):
    """Post a run's report; return our comment's text, which is the only one."""
    def post(report: str = "report") -> str:
        (tmp_path / "artifact" / "report.md").write_text(report)
        comment.comment(HEAD, "https://owner.github.io/name/")
        [body] = [one["body"] for one in github.ours()]
        return body

    return post


def test_one_harmless_comment_on_the_pull_request_with_this_head(github, posted):
    github.pulls = [pull(number, f"{number:040x}") for number in range(1, 150)]
    assert "nothing is posted" in comment.comment(HEAD, "") and not github.comments
    github.pulls.append(pull(7, HEAD, "fork/name"))
    for number in range(250):
        github.comment(f"comment {number}")
    github.comment(f"mine?\n{MARK}", "attacker")
    page = "[open](<https://github.localhost/owner/name/actions/runs/42/artifacts/1#cnn>)"
    site = "[main](<https://owner.github.io/name/index.html>)"
    for first in ("first", "second"):
        body = posted(f"{first} @octocat {page} {site} [bad](https://evil.example)")
        assert body.startswith(first) and page in body and site in body
        assert "@octocat" not in body and "https://evil" not in body
        assert len(github.comments) == 252
    assert [path for _, path in github.requests if "comments" in path][-2] == "issues/7/comments"


@pytest.mark.parametrize("faults", [[("GET", 500), ("POST", 502), ("PATCH", 500)], []])
def test_faults_that_pass_are_tried_again(github, posted, faults):
    github.faults, github.lose_answer = faults, not faults
    posted()
    assert posted().startswith("report") and not github.faults


def test_what_github_refuses_is_one_sentence_and_ends(github, posted):
    github.faults = [("POST", 403)] * 10
    with pytest.raises(UserError, match=r"gh api repos/owner/name/issues/7/comments .*fault 403"
                       ) as error:
        posted()
    assert "secret-token" not in str(error.value)
    assert not github.comments and len(github.requests) < 40


def test_a_report_that_is_too_long_is_cut_behind_a_fold_or_a_line(posted):
    fold = "<details>\n<summary>fold</summary>\n\n| a |\n|---|\n" + "| 1 |\n" * 900 + "\n</details>"
    body = posted("\n\n".join(["the headline", *[fold] * 30]))
    assert body.startswith("the headline") and comment.NOTE in body and len(body) <= 65_536
    assert body.count("<details>") == body.count("</details>") == 10
    body = posted("the headline\n\n" + "| 1 |\n" * 20_000 + fold)
    assert body.startswith("the headline") and f"| 1 |\n\n{comment.NOTE}" in body
    assert len(body) <= 65_536


@pytest.mark.parametrize(("tests", "words"), [
    ([run(TESTS, "success")], " Tests of abababab: passed."),
    ([run(TESTS, "failure"), run(TESTS, "success")], " Tests of abababab: **failed**."),
    ([run(TESTS, None)], " Tests of abababab: not ended yet."),
    ([run(".github/workflows/other.yml", "success"), run(TESTS, "success", "push")], "")])
def test_the_first_line_ends_with_the_tests_of_the_projects_own_workflow(
        github, posted, tests, words):
    github.runs = [*tests, run(REPORT, None)]
    assert "has not ended" in comment.comment(HEAD, "") and not github.comments
    github.runs = [*tests, run(REPORT, "failure")]
    assert posted("same champion.\n\nmore").startswith(f"same champion.{words}\n\nmore")


def test_a_run_without_a_report_is_told_by_its_failed_step(github):
    github.jobs = [{"steps": [{"name": "a", "conclusion": "success"},
                              {"name": "make `setup` @x", "conclusion": "failure"}]}]
    for artifacts in ({}, github.artifacts):  # the folder has no report
        github.artifacts = artifacts
        comment.comment(HEAD, "")
        [body] = [one["body"] for one in github.ours()]
        assert body.startswith(f"**no report**: the run of {HEAD[:8]} ended at its step `make s")
        assert "@x" not in body


@pytest.mark.parametrize(("origin", "expected"), [
    ("git@github.com:owner/name.git", ("github.com", "owner/name")),
    ("https://token@github.company.com/owner/name", ("github.company.com", "owner/name")),
    ("ssh://git@github.company.com:22/owner/na.me.git", ("github.company.com", "owner/na.me"))])
def test_gh_asks_the_host_of_the_repository(monkeypatch, origin, expected):
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    monkeypatch.setattr(gh.tracking, "git", lambda *words: f"{origin}\n")
    assert gh.repository() == expected
    monkeypatch.setattr(gh.tracking, "git", lambda *words: "../elsewhere\n")
    with pytest.raises(UserError, match="is no repository on GitHub"):
        gh.repository()


def test_the_real_cml_and_gh_update_one_comment(github, tmp_path, monkeypatch):
    """CML asks for TLS."""
    if not (program := WHICH("cml")) or not WHICH("openssl"):
        pytest.skip("there is no `cml` on the PATH, or no openssl for the server's certificate")
    server, certificate = github.with_tls(tmp_path)
    for name, value in {"NODE_EXTRA_CA_CERTS": str(certificate), "GITHUB_SHA": HEAD,
                        "SSL_CERT_FILE": str(certificate),
                        "GITHUB_SERVER_URL": f"https://127.0.0.1:{server.server_port}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(comment.shutil, "which", lambda name, **_: program)
    for report, how in (("1", "CML"), ("2", "CML"), ("3", "gh"), ("4", "CML")):
        github.faults += [("PATCH", 403)] * (how == "gh")
        assert comment.post(7, report) == f"Posted by {how} on pull request 7."
    server.shutdown()
    assert len(github.comments) == 1 and github.ours()[0]["body"].startswith("4\n")


def test_cml_is_left_out_where_it_would_take_anothers_comment(github, posted, monkeypatch):
    monkeypatch.setattr(comment.shutil, "which", lambda name, **_: "cml")
    monkeypatch.setattr(comment, "_by_cml", lambda *_: pytest.fail("CML was called"))
    theirs = github.comment(comment.CML_SIGN, "attacker")
    assert posted().startswith("report") and theirs["body"] == comment.CML_SIGN
    github.comments.clear()
    for number in range(40):
        github.comment(f"comment {number}")
    github.comment(f"old\n{MARK}", "github-actions[bot]")
    assert posted("new").startswith("new")
