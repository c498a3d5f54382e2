"""GitHub by its own program gh, which hosted runners have and a person installs once."""

import json
import os
import re
import subprocess
import time
from urllib.parse import urlsplit

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root

ORIGIN = re.compile(
    r"(?:[\w.+-]+://)?(?:[^/@]*@)?([\w.-]+)(?::\d+)?[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?")
TRANSIENT = re.compile(r"HTTP (?:5\d\d|429)|rate limit|error connecting|EOF|timeout", re.IGNORECASE)


def repository() -> tuple[str, str]:
    """Return host and owner/name: in a workflow its own, else those of the git remote origin."""
    if server := os.environ.get("GITHUB_SERVER_URL"):
        return urlsplit(server).netloc, os.environ["GITHUB_REPOSITORY"]
    if match := ORIGIN.fullmatch(tracking.git("remote", "get-url", "origin").strip()):
        return match[1], match[2]
    raise UserError("The git remote origin is no repository on GitHub: push the project there "
                    "first (gh repo create, or git remote add origin ADDRESS).")


def gh(*words: str, stdin: str = "", waits: tuple[int, ...] = (1, 4, 16)) -> str:
    """Return what `gh WORDS` prints. Raise UserError with gh's reason where it fails.

    What fails for a moment is tried again after each of `waits`, in seconds."""
    host, name = repository()  # gh by itself would take github.com, or the first remote
    variables = {"GH_HOST": host, "GH_REPO": f"{host}/{name}"} | os.environ
    variables.setdefault("GH_ENTERPRISE_TOKEN", variables.get("GH_TOKEN", ""))
    for seconds in (*waits, None):
        try:
            done = subprocess.run(["gh", *words], cwd=root(), env=variables, input=stdin,
                                  capture_output=True, text=True, errors="replace")
        except FileNotFoundError:
            raise UserError("GitHub's program gh is not installed: install it "
                            "(https://cli.github.com), then gh auth login.") from None
        if done.returncode == 0:
            return done.stdout
        if seconds is None or not TRANSIENT.search(done.stderr):
            break
        time.sleep(seconds)
    reason = " ".join(f"{done.stderr} {done.stdout}".split())[:500]
    raise UserError(f"gh {' '.join(words[:4])} failed: {reason}")


def api(path: str, *words: str, body: dict | None = None) -> dict:
    """Return the JSON of GitHub's REST API for a `path` below the repository.

    A `body` is sent once, by POST or as `words` say: what it made would be made twice."""
    address = f"repos/{repository()[1]}/{path}"
    if body is None:
        return json.loads(gh("api", address))
    return json.loads(gh("api", address, *words, "--input", "-", stdin=json.dumps(body), waits=()))


def listed(path: str) -> list[dict]:
    """Return the whole list that GitHub's REST API has at a `path` below the repository."""
    address = f"repos/{repository()[1]}/{path}?per_page=100"
    lines = gh("api", address, "--paginate", "--jq", ".[]").splitlines()
    return [json.loads(line) for line in lines]
