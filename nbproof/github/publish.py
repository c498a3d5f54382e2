"""Publishes a run's results: the outputs to the DVC remote, then dvc.lock and what git keeps as one commit.

The only place with write credentials, and it takes the results as data. Nothing of the branch is executed or checked
out: GitHub's API makes the commit, without hooks or configuration of the branch, and the files go to the remote that
this (trusted) checkout and its environment name, never to one that the branch's .dvc/config names.
"""

import base64
import json
import re
from pathlib import Path
from urllib.parse import quote

from nbproof.github import results
from nbproof.github.api import Answer, Api
from nbproof.notebook.errors import UserError

TRAILER = "Published-From-Run"
TAKE = "In a checkout of the branch, `nbproof github take {run}` brings these results, to be committed and pushed."
BOT = {"name": "github-actions[bot]", "email": "41898282+github-actions[bot]@users.noreply.github.com"}


def publish(api: Api, folder: Path, sha: str, branch: str, commits: bool, run: int, remote: dict,
            app: Api | None = None) -> str:
    """Publish the results in `folder`, which a run of commit `sha` made on `branch`; says what was done.

    Without `commits` (main: no bot commits what nobody reviewed) results other than the committed ones are refused.
    A commit is made by `app`, a GitHub App's token: one by a workflow's own would get no checks.
    """
    lock, outputs, kept, objects = results.taken(folder)
    parent = api.call("GET", f"/git/commits/{sha}")
    listed = api.call("GET", f"/git/trees/{parent['tree']['sha']}?recursive=1")
    if listed["truncated"]:
        raise UserError(f"{sha[:8]} has more files than GitHub lists: nothing is published.")
    files = {each["path"]: each["sha"] for each in listed["tree"] if each["type"] == "blob"}
    text = api.call("GET", f"/git/blobs/{files['dvc.lock']}")["content"] if "dvc.lock" in files else None
    old_lock = None if text is None else base64.b64decode(text)
    before = results.recorded(old_lock and old_lock.decode(errors="replace"), f"dvc.lock of {sha[:12]}")
    if not commits and outputs != before:
        paths = ", ".join(sorted({path for path, _ in outputs.items() ^ before.items()}))
        raise UserError(f"The run's results are not those that {branch} records ({paths}); nothing is published: "
                      "bring them in by a pull request.")
    pushed = f"{results.push(objects, remote)} files were new to the DVC remote. " if remote else ""
    if commits and parent["committer"]["name"] == BOT["name"] and f"\n{TRAILER}: " in parent["message"]:
        # Two machines can always differ in a last bit: this job does not replace its own commit, so it makes no loop.
        return f"{pushed}{sha[:8]} was made by this job: nothing is committed on top of it."
    if not commits or lock == old_lock:
        return f"{pushed}{branch} holds these results already: nothing to commit."
    if app is None:
        return f"{pushed}No GitHub App is set up to commit (docs/github.md). {TAKE.format(run=run)}"
    changed = {path: file.read_bytes() for path, file in kept.items()} | {"dvc.lock": lock}
    changed |= {path: None for path in files if path not in changed and results.below(path, before)}
    return pushed + _commit(app, parent, changed, branch, f"Results of CI for {sha[:12]}\n\n{TRAILER}: {run}\n")


def _commit(api: Api, parent: dict, files: dict[str, bytes | None], branch: str, message: str) -> str:
    """Put a commit with these files (None: removed) on `branch`, unless it has newer commits; says what was done."""
    def blob(content: bytes | None) -> str | None:
        encoded = {"content": base64.b64encode(content or b"").decode(), "encoding": "base64"}
        return None if content is None else api.call("POST", "/git/blobs", encoded)["sha"]

    tree = [{"path": path, "mode": "100644", "type": "blob", "sha": blob(content)} for path, content in files.items()]
    tree = api.call("POST", "/git/trees", {"base_tree": parent["tree"]["sha"], "tree": tree})["sha"]
    content = {"message": message, "tree": tree, "parents": [parent["sha"]], "author": BOT, "committer": BOT}
    commit = api.call("POST", "/git/commits", content)["sha"]
    try:
        api.call("PATCH", f"/git/refs/heads/{quote(branch)}", {"sha": commit, "force": False})
    except Answer as answer:
        if answer.status != 422 or "fast forward" not in str(answer):  # a rule of the branch answers 422, too
            raise
        return f"{branch} has newer commits than {parent['sha'][:8]}: nothing is committed, the newer run publishes."
    return f"{commit} holds dvc.lock and the small outputs of this run."


def branch_of(api: Api, sha: str, event: str, default: str) -> tuple[str, bool] | None:
    """The branch to publish to and whether commits are allowed there, by the API alone; None where there is none."""
    if event == "push":
        return (default, False) if api.call("GET", f"/branches/{quote(default)}")["commit"]["sha"] == sha else None
    heads = [each["head"] for each in api.pull_requests(sha)]
    branch = next((head["ref"] for head in heads if (head["repo"] or {}).get("full_name") == api.repository), None)
    if branch is None:
        return None
    if branch == default or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/+#@-]{0,200}", branch):
        raise UserError(f"Nothing is committed to the branch {json.dumps(branch)}: it is the default branch, or its name "
                      "has signs other than letters, digits and ._/+#@-.")
    return branch, True
