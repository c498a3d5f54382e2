"""GitHub by its own program gh, which hosted runners have and a person installs once."""

import json
import os
import re
import subprocess
from urllib.parse import urlsplit

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root

ORIGIN = re.compile(
    r"(?:[\w.+-]+://)?(?:[^/@]*@)?([\w.-]+)(?::\d+)?[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?")


def repository() -> tuple[str, str]:
    """Return host and owner/name: in a workflow its own, else those of the git remote origin."""
    if server := os.environ.get("GITHUB_SERVER_URL"):
        return urlsplit(server).netloc, os.environ["GITHUB_REPOSITORY"]
    if match := ORIGIN.fullmatch(tracking.git("remote", "get-url", "origin").strip()):
        return match[1], match[2]
    raise UserError("The git remote origin is no repository on GitHub: push the project there "
                    "first (gh repo create, or git remote add origin ADDRESS).")


def page_of(run: object) -> str:
    """Return the address of a workflow's run."""
    return "https://{}/{}/actions/runs/{}".format(*repository(), run)


def gh(*words: str, stdin: str = "") -> str:
    """Return what `gh WORDS` prints. Raise UserError with gh's reason where it fails."""
    host, name = repository()  # gh by itself would take github.com, or the first remote
    variables = {"GH_HOST": host, "GH_REPO": f"{host}/{name}"} | os.environ
    variables.setdefault("GH_ENTERPRISE_TOKEN", variables.get("GH_TOKEN", ""))
    try:
        done = subprocess.run(["gh", *words], cwd=root(), env=variables, input=stdin,
                              capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise UserError("GitHub's program gh is not installed: install it "
                        "(https://cli.github.com), then gh auth login.") from None
    if done.returncode:
        reason = " ".join(f"{done.stderr} {done.stdout}".split())[:500]
        raise UserError(f"gh {' '.join(words[:4])} failed: {reason}")
    return done.stdout


def api(path: str, *words: str, body: dict | None = None) -> dict:
    """Return the JSON of GitHub's REST API for a `path` below the repository.

    A `body` is sent by POST, or as `words` say."""
    sent = [] if body is None else [*words, "--input", "-"]
    return json.loads(gh("api", f"repos/{repository()[1]}/{path}", *sent, stdin=json.dumps(body)))


def listed(path: str) -> list[dict]:
    """Return the whole list that GitHub's REST API has at a `path` below the repository."""
    address = f"repos/{repository()[1]}/{path}?per_page=100"
    lines = gh("api", address, "--paginate", "--jq", ".[]").splitlines()
    return [json.loads(line) for line in lines]
