"""One comment on a pull request: made once, then updated; by CML where it can, otherwise by GitHub's own API."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from nbproof.github.api import PASSING, Answer, Api
from nbproof.notebook.errors import UserError

MARK = "<!-- nbproof: report -->"
TITLE = "pipeline-report"
CML_MARK = re.compile(rf'!\[\]\(https://cml\.dev/watermark\.png#[0-9a-fA-F]+ "CML watermark {TITLE}"\)')
# So that CML takes up what the API posted.
CML_SIGN = f'![](https://cml.dev/watermark.png#{{}} "CML watermark {TITLE}")'
CML_SEES = 30  # comments; `cml comment update` reads one page and takes the last with its watermark, whoever wrote it
LIMITS = (65_236, 30_000, 8_000, 1_000)  # characters. GitHub counts in its own way, so smaller ones are tried
NOTE = "This report is shortened: GitHub did not take all of it. All of it is in the job's summary and artifacts."


def post(api: Api, number: int, report: str) -> str:
    """Leave exactly one comment of ours with `report` on pull request `number`; says how it was posted."""
    for wait in (1, 2, 4, 8, None):
        try:
            return _post(api, number, report)
        except Answer as answer:  # an answer can get lost: looking again finds the comment that was made all the same
            if wait is None or answer.status not in (0, *PASSING):
                raise UserError(f"No comment on pull request {number} (needs `pull-requests: write`). {answer}") from None
            time.sleep(wait * api.pause)
    raise AssertionError("the last try returns or raises")


def _post(api: Api, number: int, report: str) -> str:
    comments, mine = _comments(api, number)
    if _cml_would_hit(comments, mine):
        if _by_cml(api, number, fitted(report, LIMITS[0])):
            return f"Posted by CML on pull request {number}."
        _, mine = _comments(api, number)  # it may have posted before it failed
    target = ("PATCH", f"/issues/comments/{mine['id']}") if mine else ("POST", f"/issues/{number}/comments")
    for limit in LIMITS:
        body = {"body": f"{fitted(report, limit)}\n\n{MARK}\n\n{CML_SIGN.format('0' * 7)}"}
        try:
            api.call(*target, body, retries=0)  # `post` tries again
            return f"Posted by GitHub's API on pull request {number} ({'updated' if mine else 'created'})."
        except Answer as answer:
            if answer.status != 422 or limit == LIMITS[-1]:
                raise
            print(f"GitHub did not take {len(body['body'])} characters ({answer}); a shorter report is tried.")
    raise AssertionError("the last limit returns or raises")


def _comments(api: Api, number: int) -> tuple[list[dict], dict | None]:
    """All comments, and ours: by its mark, which anyone could copy, and by its author."""
    try:
        author = api.call("GET", "//user")["login"]
    except Answer as answer:
        if answer.status not in (401, 403, 404):
            raise
        author = "github-actions[bot]"  # a workflow's own token may not ask, and writes as this bot
    found = list(api.pages(f"/issues/{number}/comments"))
    ours = [each for each in found if MARK in (each["body"] or "") and (each["user"] or {}).get("login") == author]
    return found, ours[-1] if ours else None


def _cml_would_hit(comments: list[dict], mine: dict | None) -> bool:
    """Whether CML would update our comment or make the first one, and not overwrite another's or add a second."""
    marked = [each for each in comments[:CML_SEES] if CML_MARK.search(each["body"] or "")]
    if not shutil.which("cml"):
        print("CML is not on the PATH: posting by GitHub's own API.")
    elif (marked[-1] if marked else None) is mine:
        return True
    else:
        print(f"CML, which reads {CML_SEES} comments, would not find the right one: posting by GitHub's own API.")
    return False


def _by_cml(api: Api, number: int, report: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="comment-") as folder:
        file = Path(folder) / "report.md"
        file.write_text(f"{report}\n\n{MARK}\n", encoding="utf-8", newline="\n")
        command = [shutil.which("cml"), "comment", "update", "--driver=github", f"--repo={api.server}/{api.repository}",
                   f"--target=pr/{number}", "--publish=false", f"--watermark-title={TITLE}", str(file)]
        variables = os.environ | {"REPO_TOKEN": api.token, "ITERATIVE_DO_NOT_TRACK": "1"}
        try:
            done = subprocess.run(command, env=variables, capture_output=True, text=True, errors="replace", timeout=180)
            lines = [line for line in (done.stderr or done.stdout).splitlines() if not re.match(r"\s*at ", line)]
            words = " ".join(" ".join(lines).replace(api.token, "***").split())  # the message, not the stack below it
            why = done.returncode and f"exit code {done.returncode}: {words[-300:]}"
        except (OSError, subprocess.TimeoutExpired) as error:
            why = type(error).__name__
    if why:
        print(f"CML could not post ({why}): posting by GitHub's own API.")
    return not why


def fitted(report: str, limit: int) -> str:
    """`report`, or its beginning, cut behind a fold or a paragraph to `limit` characters, with a note that says so."""
    if len(report) <= limit:
        return report
    start = report[: limit - len(NOTE) - 3]
    whole, fold, _ = start.rpartition("\n</details>\n")
    whole = whole or start.partition("<details>")[0].rpartition("\n\n")[0]
    return f"{whole}{fold}\n\n{NOTE}".lstrip()
