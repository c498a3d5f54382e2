"""Publishes a run's results: outputs to the DVC remote; dvc.lock and what git keeps as a commit.

The one job with write credentials takes the results as data. It works in publishing/, a checkout
of the default branch by the deploy key, and changes no file there: git's index makes the commit, so
no hook, filter or link of the branch can act.
"""

import subprocess
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.review import artifact

TRAILER = "Published-From-Run: "
WHO = ("-c", "user.name=github-actions[bot]",
       "-c", "user.email=41898282+github-actions[bot]@users.noreply.github.com")


def publish(folder: Path, sha: str, branch: str, default: str, run: str, commits: bool) -> str:
    """Publish the results in `folder` of a run of the commit `sha`, which was the head of `branch`
    of this repository, as GitHub's event says; return what was done.

    On the default branch other results than the committed ones are refused: nobody reviewed them.
    """
    results = artifact.checked(folder)
    _git("fetch", "--quiet", "--depth=1", "origin", f"refs/heads/{branch}")
    if _git("rev-parse", "FETCH_HEAD") != sha:
        return f"The branch has newer commits than {sha[:8]}: the newer run publishes."
    before = artifact.recorded(_git("cat-file", "blob", f"{sha}:dvc.lock"), "dvc.lock")
    other = sorted({path for path, _ in results.outputs.items() ^ before.items()})
    if branch == default and other:
        raise UserError(f"The run's results are not those that {default} records "
                        f"({', '.join(other)}): bring them in by a pull request.")
    said = artifact.push(results.objects)
    if not other:
        return f"{said} The branch records these results already."
    if TRAILER in _git("log", "-1", "--format=%B", sha):
        # Machines can differ in a last bit for ever: no commit follows this job's own.
        return f"{said} {sha[:8]} is a commit of this job: none is put on top of it."
    if not commits:
        return f"{said} No key may commit: `nbproof github take {run}` brings the results."
    commit = _commit(sha, results, before, f"Results of CI for {sha[:12]}\n\n{TRAILER}{run}")
    _git("push", "--quiet", "origin", f"{commit}:refs/heads/{branch}")  # git refuses if it moved
    return f"{said} {commit} holds dvc.lock and the small outputs of this run."


def _commit(sha: str, results: artifact.Results, before: dict[str, str], message: str) -> str:
    """Return a commit on top of `sha` with dvc.lock and the files that git keeps."""
    blobs = {path: _git("hash-object", "-w", "--no-filters", str(file.resolve()))
             for path, file in results.kept.items()}
    _git("read-tree", sha)
    _git("rm", "-rfq", "--cached", "--ignore-unmatch", "--", "dvc.lock", *before)
    _git("update-index", "--index-info",
         stdin="".join(f"100644 {blob}\t{path}\n" for path, blob in blobs.items()))
    return _git(*WHO, "commit-tree", _git("write-tree"), "-p", sha, "-m", message)


def _git(*words: str, stdin: str = "") -> str:
    """Return what git prints in publishing/. Raise UserError with its reason where it fails."""
    done = subprocess.run(["git", *words], cwd=root() / "publishing", input=stdin,
                          capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"git {words[0]} failed: {' '.join(done.stderr.split())[:300]}")
    return done.stdout.rstrip("\n")
