"""Publishes what a run made: the outputs to the DVC remote, then dvc.lock and metrics/ together as one commit on the branch.

This is the only place with write credentials, and it takes a run's results as data. Nothing of the branch is executed or even checked
out: the commit is made from git's objects, so that no hook, filter, attribute or configuration of the branch comes into play, and the
files go to the remote that this (trusted) checkout and its environment name, never to one that the branch's .dvc/config names.
"""

import base64
import json
import os
import re
import stat
import subprocess
import tempfile
from pathlib import Path

from pipeline import ROOT, Refused
from pipeline.github import lock, storage
from pipeline.github.api import Api
from pipeline.github.pull_request import checked

MOST_FILE, MOST_METRIC, MOST_ALL = 2_000_000_000, 1_000_000, 8_000_000_000  # bytes
TRAILER = "Published-From-Run"
BOT = "github-actions[bot]"
BOT_MAIL = "41898282+github-actions[bot]@users.noreply.github.com"
# A push with a workflow's own token starts no workflow; being started by `workflow_dispatch` is the exception that GitHub makes for it.
# A run that is started so reports its checks on the branch's head, the new commit, under the same names that are required.
CHECKS = ("tests.yml", "report.yml")


def taken(folder: Path) -> tuple[bytes, dict[str, lock.Output]]:
    """dvc.lock and the outputs that it records, out of the artifact `folder`; Refused unless they are all there, all that is there, and right."""
    files = _files(folder)
    if "dvc.lock" not in files:
        raise Refused("The run's results hold no dvc.lock.")
    text = _content(folder / "dvc.lock", lock.MOST)
    recorded = lock.outputs(text.decode("utf-8", errors="replace"), "dvc.lock of the run's results")
    strange = sorted(set(files) - {"dvc.lock", *recorded})
    missing = sorted(set(recorded) - set(files))
    if strange or missing:
        what = "; ".join(filter(None, [strange and f"not recorded: {strange[:5]}", missing and f"missing: {missing[:5]}"]))
        raise Refused(f"The run's results and their dvc.lock do not agree ({what}): nothing is published.")
    if sum(files.values()) > MOST_ALL:
        raise Refused(f"The run's results are larger than {MOST_ALL} bytes together.")
    for out in recorded.values():
        if files[out.path] > (MOST_METRIC if out.in_git else MOST_FILE):
            raise Refused(f"{out.path} is too large to be published, {files[out.path]} bytes.")
        if files[out.path] != out.size or _md5(folder / out.path) != out.md5:
            raise Refused(f"{out.path} does not have the bytes that dvc.lock records: nothing is published.")
    return text, recorded


def _files(folder: Path) -> dict[str, int]:
    """The size of every file below `folder`, by its place; Refused where there is anything but folders and regular files."""
    found = {}
    for parent, folders, names in os.walk(folder, followlinks=False):
        for name in [*folders, *names]:
            path = Path(parent) / name
            info = path.lstat()
            if stat.S_ISREG(info.st_mode):
                found[path.relative_to(folder).as_posix()] = info.st_size
            elif not stat.S_ISDIR(info.st_mode):
                raise Refused(f"The run's results hold {path.relative_to(folder).as_posix()!r}, which is no regular file: nothing is published.")
    return found


def _content(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise Refused(f"{path.name} is larger than {most} bytes.")
    return content


def _md5(path: Path) -> str:
    from dvc.fs import localfs
    from dvc_data.hashfile.hash import file_md5

    return file_md5(str(path), localfs, name="md5")


class Branch:
    """A branch of a remote repository, seen through git's objects alone. `url` is the repository, `token` what may push to it."""

    def __init__(self, folder: Path, url: str, token: str = "") -> None:
        self.folder, self.url = folder, url
        plain = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        self.environment = plain | {
            "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_DIR": str(folder),
            "GIT_AUTHOR_NAME": BOT, "GIT_AUTHOR_EMAIL": BOT_MAIL, "GIT_COMMITTER_NAME": BOT, "GIT_COMMITTER_EMAIL": BOT_MAIL,
        }
        if token:  # by environment: an argument can be seen by every process of the machine, a file stays behind
            header = base64.b64encode(f"x-access-token:{token}".encode()).decode()
            self.environment |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"http.{url}.extraheader", "GIT_CONFIG_VALUE_0": f"Authorization: Basic {header}"}
        self.git("init", "--quiet", "--bare", str(folder))

    def git(self, *arguments: str, content: bytes | None = None) -> str:
        """What git prints; Refused with its words where it fails."""
        done = subprocess.run(["git", *arguments], env=self.environment, input=content or b"", capture_output=True)
        if done.returncode != 0:
            raise Refused(f"git {arguments[0]} failed: {' '.join(done.stderr.decode(errors='replace').split())[-300:]}")
        return done.stdout.decode(errors="replace").strip()

    def fetch(self, sha: str) -> None:
        self.git("fetch", "--quiet", "--no-tags", "--depth=1", self.url, sha)
        self.git("read-tree", sha)

    def recorded(self, sha: str) -> dict[str, lock.Output]:
        """The outputs that dvc.lock of commit `sha` records."""
        if not self.git("ls-tree", sha, "--", "dvc.lock"):
            return {}
        return lock.outputs(self.git("cat-file", "blob", f"{sha}:dvc.lock"), f"dvc.lock of {sha[:12]}")

    def put(self, path: str, content: bytes) -> None:
        blob = self.git("hash-object", "-w", "--stdin", content=content)
        self.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")

    def take_out(self, path: str) -> None:
        self.git("update-index", "--index-info", content=f"0 {'0' * 40}\t{path}\n".encode())

    def commit(self, parent: str, message: str) -> str | None:
        """A commit of the index on top of `parent`; None where it would change nothing."""
        tree = self.git("write-tree")
        if tree == self.git("rev-parse", f"{parent}^{{tree}}"):
            return None
        changed = self.git("diff-tree", "-r", "--name-only", f"{parent}^{{tree}}", tree).splitlines()
        if strange := [each for each in changed if each != "dvc.lock" and not re.fullmatch(r"metrics/[A-Za-z0-9][A-Za-z0-9_.-]*", each)]:
            raise Refused(f"The commit would change {strange}, which is neither dvc.lock nor in metrics/.")
        return self.git("commit-tree", tree, "-p", parent, content=message.encode())

    def push(self, commit: str, branch: str) -> bool:
        """Put `commit` on `branch`; False where the branch went on meanwhile, so that this would undo something."""
        try:
            self.git("push", "--quiet", self.url, f"{commit}:refs/heads/{branch}")
        except Refused:
            if self.git("ls-remote", self.url, f"refs/heads/{branch}").startswith(self.git("rev-parse", f"{commit}^")):
                raise
            return False
        return True


def to_remote(folder: Path, recorded: dict[str, lock.Output], configuration: dict) -> int:
    """Push DVC's outputs among `recorded` to the remote; how many the remote did not have."""
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

    with Repo(str(ROOT), config=configuration) as repo:
        if not repo.config["core"].get("remote"):
            raise Refused("No DVC remote is configured: set the variable DVC_REMOTE_URL.")
        outputs = {out.md5: out for out in recorded.values() if not out.in_git}
        for out in outputs.values():
            repo.cache.local.add(str(folder / out.path), repo.cache.local.fs, out.md5, hardlink=False)
        try:
            done = repo.cloud.push([HashInfo("md5", md5) for md5 in outputs])
        except Exception as error:  # each kind of remote raises its own
            why = " ".join(str(error).split())[:300]
            raise Refused(f"The outputs could not be pushed to the DVC remote ({type(error).__name__}: {why}); nothing is committed.") from None
        if done.failed:
            raise Refused(f"{len(done.failed)} outputs could not be pushed to the DVC remote; nothing is committed.")
        return len(done.transferred)


def publish(folder: Path, url: str, sha: str, branch: str, run: str, commits: bool, token: str = "", configuration: dict | None = None) -> str | None:
    """Publish the results in `folder`, which a run of commit `sha` made; the new commit on `branch`, or None where there is none.

    Without `commits` (main: no bot commits there what nobody reviewed) results other than the committed ones are refused.
    """
    checked(sha)
    text, recorded = taken(folder)
    with tempfile.TemporaryDirectory(prefix="branch-") as temporary:
        repository = Branch(Path(temporary) / "objects.git", url, token)
        repository.fetch(sha)
        before = repository.recorded(sha)
        if not commits and recorded != before:
            paths = ", ".join(sorted(path for path in recorded.keys() | before.keys() if recorded.get(path) != before.get(path)))
            raise Refused(f"The run's results are not those that {branch} records ({paths}); nothing is published: bring them in by a pull request.")
        pushed = to_remote(folder, recorded, storage.settings(os.environ) if configuration is None else configuration)
        print(f"{pushed} files were new to the DVC remote.")
        if not commits:
            return None
        committer, _, message = repository.git("log", "-1", "--format=%cn%n%B", sha).partition("\n")
        if committer == BOT and f"\n{TRAILER}: " in message:
            # Two machines can differ in a last bit for ever: what this job committed is not replaced by itself, so there is no loop.
            print(f"{sha[:8]} was made by this job: nothing is committed on top of it.")
            return None
        if recorded == before:
            print("The branch records these results already: nothing to commit.")
            return None
        repository.put("dvc.lock", text)
        for out in recorded.values():
            if out.in_git:
                repository.put(out.path, _content(folder / out.path, MOST_METRIC))
        for path in sorted(path for path, out in before.items() if out.in_git and path not in recorded):
            repository.take_out(path)
        commit = repository.commit(sha, f"Results of CI for {sha[:12]}\n\n{TRAILER}: {run}\n")
        if commit is None:
            print("The branch holds these files already: nothing to commit.")
            return None
        if not repository.push(commit, branch):
            print(f"{branch} has gone on since {sha[:8]}: nothing is committed, the newer run publishes.")
            return None
    print(f"{commit} holds dvc.lock and metrics/ of this run.")
    return commit


def start_checks(api: Api, branch: str) -> None:
    """Start the workflows whose checks the new head of `branch` needs."""
    for workflow in CHECKS:
        api.call("POST", f"/actions/workflows/{workflow}/dispatches", {"ref": branch})
    print(f"Started on {branch}: {', '.join(CHECKS)}")


def branch_of(api: Api, sha: str, event: str, default: str, found: dict | None) -> tuple[str, bool] | None:
    """The branch to publish to and whether commits are allowed there; None where there is nothing to publish to any more.

    The branch's name is the API's, never the run's: `found` is the open pull request with the head `sha`.
    """
    if event == "push":
        head = api.call("GET", f"/branches/{default}")["commit"]["sha"]
        return (default, False) if head == sha else None
    if found is None or (found["head"]["repo"] or {}).get("full_name") != api.repository:
        return None
    branch = found["head"]["ref"]
    if branch == default or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/+#@-]{0,200}", branch):
        raise Refused(f"Nothing is committed to the branch {json.dumps(branch)}: it is the default branch, or its name has signs that are not used here.")
    return branch, True
