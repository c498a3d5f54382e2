"""Which pull request a run belongs to, proven by its head commit."""

import re

from pipeline import Refused
from pipeline.github.api import Api

SHA = re.compile(r"[0-9a-f]{40}")


def checked(sha: str) -> str:
    """`sha`, if it is a full commit SHA."""
    if not SHA.fullmatch(sha):
        raise Refused(f"A full commit SHA is needed, 40 hexadecimal digits, found {sha!r}.")
    return sha


def find(api: Api, sha: str, claimed: int | None = None) -> dict | None:
    """The one open pull request whose head is `sha` now; None where there is none (closed, or its branch went on).

    Nothing that the run says is believed: `claimed`, the number that an event gave, only chooses among those that the API names.
    The list of open ones is read, because /commits/SHA/pulls knows no commit of a fork and workflow_run.pull_requests is empty for forks.
    """
    checked(sha)
    found = [each for each in api.pages("/pulls?state=open&sort=updated&direction=desc") if each["head"]["sha"] == sha]
    if claimed is not None:
        return next((each for each in found if each["number"] == claimed), None)
    if len(found) > 1:
        numbers = ", ".join(f"{each['number']}" for each in found)
        raise Refused(f"The pull requests {numbers} have the same head {sha[:8]}; name one (--number), or close the others.")
    return found[0] if found else None
