"""Leaves one comment on a pull request, by CML where it is there, else by gh, and updates it.

The run that wrote the report executed code that nobody reviewed: its text is made harmless, links
lead to that run alone, and the pull request is the one whose head is the run's commit.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.review.gh import api, gh, listed, repository
from nbproof.review.sanitise import sanitised

AUTHOR = "github-actions[bot]"  # who a workflow's own token writes as
MARK = "<!-- nbproof: report -->"
TITLE = "pipeline-report"
CML_MARK = re.compile(rf'#[0-9a-fA-F]+ "CML watermark {TITLE}"\)')  # CML takes up what gh posted
CML_SIGN = f'![](https://cml.dev/watermark.png#0000000 "CML watermark {TITLE}")'
CML_READS = 30  # comments; it updates the last with its watermark, whoever wrote it
# Characters of each try. GitHub counts in its own way, so smaller reports are tried as well.
LIMITS = (65_236, 65_236, 30_000, 8_000)
NOTE = "This report is shortened to what GitHub takes. All of it is in the run's summary."
ENDED = ("success", "failure", "timed_out")


def comment(sha: str, pages_url: str) -> str:
    """Post the report of the commit `sha` on each pull request with this head; return how.

    Both the end of `report` and that of `tests` call this: the later one completes the comment."""
    # Whatever the run says. All open ones are read: /commits/SHA/pulls knows no commit of a fork.
    pulls = [pull for pull in listed("pulls") if pull["head"]["sha"] == sha]
    if not pulls:
        return f"No open pull request has the head {sha[:8]}: nothing is posted."
    run = _latest_run("report.yml", sha)
    if not run or run["conclusion"] not in ENDED:
        return f"The workflow report has not ended for {sha[:8]}: its end posts the comment."
    first, newline, rest = _report(run, sha, pages_url).partition("\n")
    text = f"{first}{_tests(sha)}{newline}{rest}"
    return "\n".join(post(pull["number"], text) for pull in pulls)


def _latest_run(workflow: str, sha: str) -> dict | None:
    """Return the newest run of a workflow file at a commit: no check of another app counts."""
    runs = api(f"actions/runs?head_sha={sha}&per_page=100")["workflow_runs"]
    path = f".github/workflows/{workflow}"
    return next((run for run in runs if run["path"].partition("@")[0] == path
                 and run["event"] != "push"), None)


def _report(run: dict, sha: str, pages_url: str) -> str:
    """Return the report that a run uploaded, made harmless; else where the run ended."""
    address = "https://{}/{}".format(*repository())
    log = f"{address}/actions/runs/{run['id']}"
    links = (log, f"{address}/commit", *filter(None, [pages_url.rstrip("/")]))
    with tempfile.TemporaryDirectory() as folder:
        try:
            gh("run", "download", str(run["id"]), "--name", "report", "--dir", folder)
        except UserError as error:
            print(error)
        file = Path(folder) / "report.md"
        if file.is_file() and not file.is_symlink() and file.stat().st_size <= 4_000_000:
            return sanitised(file.read_text(encoding="utf-8", errors="replace"), links)
    jobs = api(f"actions/runs/{run['id']}/jobs")["jobs"]
    step = next((step["name"] for job in jobs for step in job["steps"]
                 if step["conclusion"] == "failure"), "")
    where = f"at its step `{sanitised(step).replace('`', '')}`" if step else "before it had one"
    return f"**no report**: the run of {sha[:8]} ended {where}. [Its log](<{log}>) says why.\n"


def _tests(sha: str) -> str:
    """Return how the workflow `tests` ended, as the last sentence of the first line."""
    if not (run := _latest_run("tests.yml", sha)):
        return ""
    how = {"success": "passed", "failure": "**failed**", None: "not ended yet"}
    return f" Tests of {sha[:8]}: {how.get(run['conclusion'], str(run['conclusion']))}."


def post(number: int, report: str) -> str:
    """Leave one comment of ours with `report` on pull request `number`; return how."""
    comments = listed(f"issues/{number}/comments")
    marked = [each for each in comments[:CML_READS] if CML_MARK.search(each["body"] or "")]
    is_found = (marked[-1] if marked else None) is _ours(comments)  # what CML would update
    if is_found and shutil.which("cml") and _by_cml(number, shortened(report, LIMITS[0])):
        return f"Posted by CML on pull request {number}."
    for limit, wait in zip(LIMITS, (1, 4, 16, None)):
        # read again: an answer can get lost, and CML can post before it fails
        ours = _ours(listed(f"issues/{number}/comments"))
        body = {"body": f"{shortened(report, limit)}\n\n{MARK}\n\n{CML_SIGN}"}
        try:
            if ours:
                api(f"issues/comments/{ours['id']}", "--method", "PATCH", body=body)
            else:
                api(f"issues/{number}/comments", body=body)
            return f"Posted by gh on pull request {number}."
        except UserError as error:
            if wait is None:
                raise
            print(error)
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _ours(comments: list[dict]) -> dict | None:
    """Return our comment: by its author and by its mark, which anyone could copy."""
    ours = [comment for comment in comments if MARK in (comment["body"] or "")
            and (comment["user"] or {}).get("login") == AUTHOR]
    return ours[-1] if ours else None


def _by_cml(number: int, report: str) -> bool:
    """Have CML post a report; return whether it did."""
    # --publish, CML's default, would upload each local file that the text links to
    command = ["cml", "comment", "update", "--driver=github", f"--target=pr/{number}",
               "--repo=https://{}/{}".format(*repository()), "--publish=false",
               f"--watermark-title={TITLE}"]
    variables = {"REPO_TOKEN": os.environ.get("GH_TOKEN", ""), "ITERATIVE_DO_NOT_TRACK": "1"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.md"
        file.write_text(f"{report}\n\n{MARK}\n", encoding="utf-8", newline="\n")
        try:
            subprocess.run([*command, str(file)], env=os.environ | variables, check=True, text=True,
                           capture_output=True, errors="replace", timeout=180)
        except (OSError, subprocess.SubprocessError) as error:
            reason = " ".join(str(getattr(error, "stderr", "") or error).split())[:300]
            print(f"CML could not post, so gh posts: {reason}")
            return False
    return True


def shortened(report: str, limit: int) -> str:
    """Return `report`, cut behind a fold or a paragraph to `limit` characters with a note."""
    if len(report) <= limit:
        return report
    start = report[: limit - len(NOTE) - 3]
    whole, fold, _ = start.rpartition("\n</details>\n")
    whole = whole or start.partition("<details>")[0].rpartition("\n\n")[0]
    return f"{whole}{fold}\n\n{NOTE}".lstrip()
