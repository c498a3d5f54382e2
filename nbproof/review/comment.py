"""Leaves one comment on a pull request, by CML where it is there, else by gh, and updates it.

The run that wrote the report executed code that nobody reviewed: its text is made harmless, links
lead to that run alone, and the pull request is the one whose head is the run's commit.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.review.gh import api, gh, listed, page_of, repository
from nbproof.review.sanitise import sanitised

AUTHOR = "github-actions[bot]"  # who a workflow's own token writes as
MARK = "<!-- nbproof: report -->"
TITLE = "pipeline-report"
CML_MARK = f'"CML watermark {TITLE}"'
CML_SIGN = f"![](https://cml.dev/watermark.png#0000000 {CML_MARK})"  # CML takes up what gh posted
CML_READS = 30  # comments; it updates the last with its watermark, whoever wrote it
LIMIT = 60_000  # GitHub takes 65,536 characters, the marks among them
NOTE = "This report is shortened to what GitHub takes. All of it is in the run's summary."
TESTS = {"success": "passed", "failure": "**failed**", None: "not ended yet"}


def comment(sha: str, pages_url: str) -> str:
    """Post the report of the commit `sha` on each pull request with this head; return how.

    What fails is tried again from the beginning: an answer can get lost."""
    for wait in (1, 4, 16):
        try:
            return _comment(sha, pages_url)
        except UserError as error:
            print(error)
            time.sleep(wait)
    return _comment(sha, pages_url)


def _comment(sha: str, pages_url: str) -> str:
    """Post it once. Both the end of `report` and that of `tests` do: the later one completes it."""
    # Whatever the run says. All open ones are read: /commits/SHA/pulls knows no commit of a fork.
    pulls = [pull["number"] for pull in listed("pulls") if pull["head"]["sha"] == sha]
    # The newest run of each workflow file: no check of another app counts.
    runs = {run["path"].partition("@")[0]: run for run in reversed(
        api(f"actions/runs?head_sha={sha}&per_page=100")["workflow_runs"])
        if run["event"] != "push"}
    run, tests = (runs.get(f".github/workflows/{name}.yml") for name in ("report", "tests"))
    if not pulls:
        return f"No open pull request has the head {sha[:8]}: nothing is posted."
    if not run or run["conclusion"] not in ("success", "failure", "timed_out"):
        return f"The workflow report has not ended for {sha[:8]}: its end posts the comment."
    first, newline, rest = _report(run, sha, pages_url).partition("\n")
    if tests:
        how = TESTS.get(tests["conclusion"], tests["conclusion"])
        first += f" Tests of {sha[:8]}: {how}."
    return "\n".join(post(number, f"{first}{newline}{rest}") for number in pulls)


def _report(run: dict, sha: str, pages_url: str) -> str:
    """Return the report that a run uploaded, made harmless; else where the run ended."""
    log = page_of(run["id"])
    with tempfile.TemporaryDirectory() as folder:
        try:
            gh("run", "download", str(run["id"]), "--name", "report", "--dir", folder)
        except UserError as error:
            print(error)
        file = Path(folder) / "report.md"
        if file.is_file() and not file.is_symlink():
            text = file.read_text(encoding="utf-8", errors="replace")
            return sanitised(text, log, pages_url)
    jobs = api(f"actions/runs/{run['id']}/jobs")["jobs"]
    step = next((step["name"] for job in jobs for step in job["steps"]
                 if step["conclusion"] == "failure"), "")
    where = f"at its step `{sanitised(step).replace('`', '')}`" if step else "before it had one"
    return f"**no report**: the run of {sha[:8]} ended {where}. [Its log](<{log}>) says why.\n"


def post(number: int, report: str) -> str:
    """Leave one comment of ours with `report` on pull request `number`; return how."""
    report = f"{shortened(report)}\n\n{MARK}\n"
    comments, ours = _comments(number)
    marked = [each for each in comments[:CML_READS] if CML_MARK in (each["body"] or "")]
    is_found = (marked[-1] if marked else None) is ours  # what CML would update
    if is_found and shutil.which("cml") and _by_cml(number, report):
        return f"Posted by CML on pull request {number}."
    _, ours = _comments(number)  # again: CML can post before it fails
    body = {"body": f"{report}\n{CML_SIGN}"}
    if ours:
        api(f"issues/comments/{ours['id']}", "--method", "PATCH", body=body)
    else:
        api(f"issues/{number}/comments", body=body)
    return f"Posted by gh on pull request {number}."


def _comments(number: int) -> tuple[list[dict], dict | None]:
    """Return all comments, and ours: by its author and by its mark, which anyone could copy."""
    comments = listed(f"issues/{number}/comments")
    ours = [comment for comment in comments if MARK in (comment["body"] or "")
            and (comment["user"] or {}).get("login") == AUTHOR]
    return comments, ours[-1] if ours else None


def _by_cml(number: int, report: str) -> bool:
    """Have CML post a report; return whether it did."""
    # --publish, CML's default, would upload each local file that the text links to
    command = ["cml", "comment", "update", "--driver=github", f"--target=pr/{number}",
               "--repo=https://{}/{}".format(*repository()), "--publish=false",
               f"--watermark-title={TITLE}"]
    variables = {"REPO_TOKEN": os.environ.get("GH_TOKEN", ""), "ITERATIVE_DO_NOT_TRACK": "1"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.md"
        file.write_text(report, encoding="utf-8", newline="\n")
        try:
            subprocess.run([*command, str(file)], env=os.environ | variables, check=True, text=True,
                           capture_output=True, errors="replace", timeout=180)
        except (OSError, subprocess.SubprocessError) as error:
            reason = " ".join(str(getattr(error, "stderr", "") or error).split())[:300]
            print(f"CML could not post, so gh posts: {reason}")
            return False
    return True


def shortened(report: str) -> str:
    """Return `report`, cut behind a fold or a line to what GitHub takes, with a note."""
    if len(report) <= LIMIT:
        return report
    whole, fold, _ = report[:LIMIT].rpartition("\n</details>\n")
    whole = whole or report[:LIMIT].partition("<details>")[0].rpartition("\n")[0]
    return f"{whole}{fold}\n\n{NOTE}"
