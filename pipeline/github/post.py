"""One comment on a pull request: made once, then updated; by CML where it can, otherwise by GitHub's own API."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from pipeline import Refused
from pipeline.github.api import Answer, Api

MARK = "<!-- notebook pipeline: report -->"
TITLE = "pipeline-report"
CML_MARK = re.compile(rf'!\[\]\(https://cml\.dev/watermark\.png#[0-9a-fA-F]+ "CML watermark {TITLE}"\)')
CML_SEES = 30  # comments; `cml comment update` reads one page, and takes the last with its watermark, whoever wrote it
LIMITS = (65_536 - 300, 30_000, 8_000, 1_000)  # characters; 300 for the watermarks. GitHub counts its own way, so smaller ones are tried
NOTE = "This report is shortened: GitHub did not take all of it. The whole is in the job's summary and among its artifacts."


def post(api: Api, number: int, report: str, server: str = "https://github.com", say: Callable[[str], None] = print) -> str:
    """Leave exactly one comment of ours with `report` on pull request `number`; says how it was posted."""
    try:
        return api.again(lambda: _post(api, number, report, server, say))
    except Answer as answer:
        if answer.status in (401, 403, 404):
            raise Refused(
                f"GitHub does not let this token comment on pull request {number} ({answer}): the job needs `pull-requests: write`; "
                "the report is in the job's summary."
            ) from None
        raise Refused(f"GitHub did not take the comment on pull request {number} ({answer}); the report is in the job's summary.") from None


def _post(api: Api, number: int, report: str, server: str, say: Callable[[str], None]) -> str:
    """Look, then post; tried again as a whole, so that a comment that was made although the answer was lost is found and not made twice."""
    comments = list(api.pages(f"/issues/{number}/comments"))
    author = _author(api)
    mine = _own(comments, author)
    if _cml_would_hit(comments, mine, say):
        if _by_cml(api, number, fitted(report, LIMITS[0]), server, say):
            return f"Posted by CML on pull request {number}."
        mine = _own(list(api.pages(f"/issues/{number}/comments")), author)  # it may have posted before it failed
    for limit in LIMITS:
        body = {"body": f"{fitted(report, limit)}\n\n{MARK}"}
        try:
            if mine:
                api.call("PATCH", f"/issues/comments/{mine['id']}", body)
            else:
                api.once("POST", f"/issues/{number}/comments", body)
            return f"Posted by GitHub's API on pull request {number} ({'updated' if mine else 'created'})."
        except Answer as answer:
            if answer.status != 422 or limit == LIMITS[-1]:
                raise
            say(f"GitHub did not take {len(body['body'])} characters ({answer}); a shorter report is tried.")
    raise AssertionError("the last limit returns or raises")


def _own(comments: list[dict], author: str) -> dict | None:
    """Our comment: by its mark, which anyone could copy, and by its author."""
    return next((each for each in reversed(comments) if MARK in (each.get("body") or "") and (each["user"] or {}).get("login") == author), None)


def _author(api: Api) -> str:
    """Who writes with this token. A workflow's own token may not ask, and writes as this bot."""
    try:
        return api.call("GET", "//user")["login"]
    except Answer as answer:
        if answer.status in (401, 403, 404):
            return "github-actions[bot]"
        raise


def _cml_would_hit(comments: list[dict], mine: dict | None, say: Callable[[str], None]) -> bool:
    """Whether CML is there and would update our comment, or make the first one: it must neither overwrite another's nor add a second."""
    if not shutil.which("cml"):
        say("CML is not on the PATH (its binary could not be had, or was not set up): posting by GitHub's own API.")
        return False
    marked = [each for each in comments[:CML_SEES] if CML_MARK.search(each.get("body") or "")]
    if (marked[-1] if marked else None) is mine:
        return True
    say("CML would not find the right comment among the first 30: posting by GitHub's own API.")
    return False


def _by_cml(api: Api, number: int, report: str, server: str, say: Callable[[str], None]) -> bool:
    with tempfile.TemporaryDirectory(prefix="comment-") as folder:
        file = Path(folder) / "report.md"
        file.write_text(f"{report}\n\n{MARK}\n", encoding="utf-8", newline="\n")
        command = [
            shutil.which("cml"), "comment", "update", "--driver=github", f"--repo={server}/{api.repository}", f"--target=pr/{number}",
            "--publish=false", f"--watermark-title={TITLE}", str(file),
        ]
        try:
            environment = os.environ | {"REPO_TOKEN": api.token, "ITERATIVE_DO_NOT_TRACK": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", timeout=180)
        except (OSError, subprocess.TimeoutExpired) as error:
            say(f"CML could not post ({type(error).__name__}): posting by GitHub's own API.")
            return False
    if done.returncode == 0:
        return True
    # Its words are shown without the token, though the runner masks it as well.
    words = " ".join((done.stderr or done.stdout).replace(api.token, "***").split())[-300:]
    say(f"CML could not post (exit code {done.returncode}: {words}): posting by GitHub's own API.")
    return False


def fitted(report: str, limit: int) -> str:
    """`report`, or what of it fits into `limit` characters: whole blocks are left out, folds from the end first, and it says so."""
    if len(report) <= limit:
        return report
    parts = _blocks(report)
    size = sum(len(each) + 2 for each in parts) + len(NOTE)
    for kind in (True, False):
        for place in reversed(range(1, len(parts))):
            if size <= limit:
                break
            if parts[place].startswith("<details>") == kind or not kind:
                size -= len(parts.pop(place)) + 2
    text = "\n\n".join([*parts, NOTE])
    return text if len(text) <= limit else NOTE


def _blocks(text: str) -> list[str]:
    """The text cut at blank lines, but never inside a fold or a code fence."""
    found, block, depth, fence = [], [], 0, ""
    for line in text.split("\n"):
        if ticks := re.match(r"(`{3,}|~{3,})", line):
            fence = "" if fence and line.startswith(fence) else fence or ticks[1]
        elif not fence:
            depth += line.count("<details>") - line.count("</details>")
        if line.strip() or fence or depth > 0:
            block.append(line)
        elif block:
            found.append("\n".join(block))
            block = []
    return [*found, "\n".join(block)] if block else found
