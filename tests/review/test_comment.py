"""The comment on a pull request, by gh and by CML, against a part of GitHub's API on loopback."""

import shutil

import pytest
from github_api import GitHub, install_gh

from nbproof.notebook.errors import UserError
from nbproof.review import comment, gh
from nbproof.review.comment import MARK

WHICH = shutil.which  # some tests replace it
HEAD, REPORT, TESTS = "ab" * 20, ".github/workflows/report.yml", ".github/workflows/tests.yml"


@pytest.fixture
def github(request, monkeypatch, tmp_path, inside):
    """GitHub for the program gh of these tests, or for the real one, `real`."""
    real = getattr(request, "param", "") == "real"
    if real and not shutil.which("gh"):
        pytest.skip("GitHub's program gh is not installed")
    server = GitHub()
    program = tmp_path if real else install_gh(tmp_path / "bin")
    (tmp_path / "project.yaml").write_text("name: tiny\nmetric: {key: rmse, goal: min}\n")
    inside(tmp_path)
    real_gh = {"HTTP_PROXY": server.address, "GH_CONFIG_DIR": str(tmp_path / "gh"),
               "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    for name, value in (server.variables(program) | real_gh).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(comment.shutil, "which", lambda name, **_: None)  # no CML
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    yield server
    server.shutdown()


def first_lines(github) -> list[str]:
    return [one["body"].partition("\n")[0] for one in github.ours()]


@pytest.mark.parametrize(("before", "github"), [(0, ""), (250, ""), (250, "real")],
                         indirect=["github"])
def test_one_comment_is_made_and_updated(github, before):
    for number in range(before):
        github.comment(f"comment {number}")
    github.comment(f"mine?\n{MARK}", "attacker")
    for report in ("first", "second"):
        assert comment.post(7, report) == "Posted by gh on pull request 7."
        assert first_lines(github) == [report] and len(github.comments) == before + 2


@pytest.mark.parametrize("faults", [
    [("GET", 500)], [("POST", 500), ("POST", 502)], [("PATCH", 500), ("GET", 429)], []])
def test_faults_that_pass_are_tried_again(github, faults):
    github.faults, github.lose_answer = faults, not faults
    comment.post(7, "report")
    comment.post(7, "report")
    assert first_lines(github) == ["report"]


def test_what_github_refuses_is_one_sentence_and_ends(github):
    github.faults = [("POST", 403)] * 10
    with pytest.raises(UserError, match=r"gh api repos/owner/name/issues/7/comments .*HTTP 403"
                       ) as error:
        comment.post(7, "report")
    assert "secret-token" not in str(error.value)
    assert not github.comments and len(github.requests) < 20


def test_a_report_that_is_too_long_is_cut_behind_a_fold(github):
    github.longest = 20_000
    fold = "<details>\n<summary>fold</summary>\n\n| a |\n|---|\n" + "| 1 |\n" * 400 + "\n</details>"
    comment.post(7, "\n\n".join(["the headline", *[fold] * 30]))
    [body] = [one["body"] for one in github.ours()]
    assert body.startswith("the headline") and comment.NOTE in body and len(body) <= 20_000
    assert body.count("<details>") == body.count("</details>") == 3


def pull(number: int, sha: str = HEAD, repository: str = "owner/name") -> dict:
    return {"number": number, "head": {"sha": sha, "repo": {"full_name": repository}}}


def run(path: str, conclusion: str | None, event: str = "pull_request", sha: str = HEAD) -> dict:
    return {"id": 42, "path": path, "conclusion": conclusion, "event": event, "head_sha": sha}


@pytest.fixture
def posted(github, tmp_path):
    """The comment of a run with this report: its text, and what the command says."""
    def post(report: str, *runs: dict) -> tuple[str, str]:
        (tmp_path / "artifact").mkdir(exist_ok=True)
        (tmp_path / "artifact" / "report.md").write_text(report)
        github.artifacts = {"42": {"report": tmp_path / "artifact"}}
        github.runs = [*runs] or [run(REPORT, "success")]
        said = comment.comment(HEAD, "https://owner.github.io/name/")
        return "".join(one["body"] for one in github.ours()), said

    return post


@pytest.mark.parametrize("github", ["", "real"], indirect=True)
def test_the_pull_request_is_the_one_with_this_head_and_its_report_is_harmless(github, posted):
    github.pulls = [pull(number, f"{number:040x}") for number in range(1, 150)]
    assert posted("x") == ("", f"No open pull request has the head {HEAD[:8]}: nothing is posted.")
    github.pulls.append(pull(7, HEAD, "fork/name"))
    page = "[open](<https://github.localhost/owner/name/actions/runs/42/artifacts/1#cnn>)"
    site = "[main](<https://owner.github.io/name/index.html>)"
    body, _ = posted(f"hello @octocat {page} {site} [bad](https://evil.example)")
    assert page in body and site in body and "@octocat" not in body and "https://evil" not in body
    assert [path for _, path in github.requests if "comments" in path][-1] == "issues/7/comments"


@pytest.mark.parametrize(("tests", "words"), [
    ([run(TESTS, "success")], " Tests of abababab: passed."),
    ([run(TESTS, "failure"), run(TESTS, "success")], " Tests of abababab: **failed**."),
    ([run(TESTS, None)], " Tests of abababab: not ended yet."),
    ([run(TESTS, "cancelled")], " Tests of abababab: cancelled."),
    ([run(".github/workflows/other.yml", "success")], ""),
    ([run(TESTS, "success", "push")], ""), ([], "")])
def test_the_first_line_ends_with_the_tests_of_the_projects_own_workflow(
        github, posted, tests, words):
    github.pulls = [pull(7)]
    body, _ = posted("same champion.\n\nmore", *tests, run(REPORT, "failure"))
    assert body.startswith(f"same champion.{words}\n\nmore")


def test_tests_that_end_first_leave_the_comment_to_the_report(github, posted):
    github.pulls = [pull(7)]
    body, said = posted("x", run(TESTS, "success"), run(REPORT, None))
    assert not body and "has not ended" in said


def test_a_run_without_a_usable_report_is_told_by_its_failed_step(github, posted, tmp_path):
    github.pulls = [pull(7)]
    github.jobs = [{"steps": [{"name": "a", "conclusion": "success"},
                              {"name": "make `setup` @x", "conclusion": "failure"}]}]
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "other.md").write_text("other")
    github.runs = [run(REPORT, "failure")]
    for github.artifacts in ({}, {"42": {"report": tmp_path / "artifact"}}):
        comment.comment(HEAD, "")
        [body] = [one["body"] for one in github.ours()]
        assert body.startswith(f"**no report**: the run of {HEAD[:8]} ended at its step `make s")
        assert "@x" not in body


@pytest.mark.parametrize(("origin", "expected"), [
    ("git@github.com:owner/name.git", ("github.com", "owner/name")),
    ("https://github.company.com/owner/name", ("github.company.com", "owner/name")),
    ("https://token@github.company.com/owner/name.git", ("github.company.com", "owner/name")),
    ("ssh://git@github.company.com:22/owner/na.me.git", ("github.company.com", "owner/na.me"))])
def test_gh_asks_the_host_of_the_repository(monkeypatch, origin, expected):
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    monkeypatch.setattr(gh.tracking, "git", lambda *words: f"{origin}\n")
    assert gh.repository() == expected
    monkeypatch.setattr(gh.tracking, "git", lambda *words: "../elsewhere\n")
    with pytest.raises(UserError, match="is no repository on GitHub"):
        gh.repository()


@pytest.fixture
def cml(github, tmp_path, monkeypatch):
    """The real CML, before the same server by TLS, which it asks for."""
    if not (program := WHICH("cml")) or not WHICH("openssl"):
        pytest.skip("there is no `cml` on the PATH, or no openssl for the server's certificate")
    server, certificate = github.with_tls(tmp_path)
    for name, value in {"NODE_EXTRA_CA_CERTS": str(certificate), "GITHUB_SHA": HEAD,
                        "SSL_CERT_FILE": str(certificate),
                        "GITHUB_SERVER_URL": f"https://127.0.0.1:{server.server_port}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(comment.shutil, "which", lambda name, **_: program)
    yield server
    server.shutdown()


def test_the_real_cml_and_gh_update_one_comment(github, cml, monkeypatch):
    assert comment.post(7, "first") == "Posted by CML on pull request 7."
    assert comment.post(7, "second") == "Posted by CML on pull request 7."
    cml.faults += [("PATCH", 403)]
    assert comment.post(7, "third") == "Posted by gh on pull request 7."
    assert comment.post(7, "fourth") == "Posted by CML on pull request 7."
    assert first_lines(github) == ["fourth"] and len(github.comments) == 1


def test_cml_is_left_out_where_it_would_take_anothers_comment(github, monkeypatch):
    monkeypatch.setattr(comment.shutil, "which", lambda name, **_: "cml")
    monkeypatch.setattr(comment, "_by_cml", lambda *_: pytest.fail("CML was called"))
    theirs = github.comment(comment.CML_SIGN, "attacker")
    assert comment.post(7, "report") == "Posted by gh on pull request 7."
    assert theirs["body"] == comment.CML_SIGN and first_lines(github) == ["report"]
    github.comments.clear()
    for number in range(40):
        github.comment(f"comment {number}")
    github.comment(f"old\n{MARK}", "github-actions[bot]")
    assert comment.post(7, "new") == "Posted by gh on pull request 7." and len(github.ours()) == 1
