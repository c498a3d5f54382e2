"""Where runs are tracked and data and models are kept; nothing written here holds a secret."""

import os
import re
import subprocess
import sys
from urllib.parse import urlsplit

from dvc.config import Config
from dvc.repo import Repo

from nbproof.notebook.errors import UserError, trace
from nbproof.notebook.files import root, write_whole
from nbproof.notebook.tracking import address, client, local_address, without_credentials
from nbproof.pipeline import dag
from nbproof.tracking.registry import data_in_use

NAME = "origin"
SECRETS = {  # what commands on this machine read; github/setup.py has those of workflows
    "MLFLOW_TRACKING_USERNAME": "tracking server: user (DagsHub: yours)",
    "MLFLOW_TRACKING_PASSWORD": "tracking server: password or token",
    "AWS_ACCESS_KEY_ID": "S3 remote: key (DagsHub: the token)",
    "AWS_SECRET_ACCESS_KEY": "S3 remote: secret (DagsHub: the token again)",
}
REASONS = (  # HTTP status, words of libraries that name none, and what to do
    ((507,), "No space left|EntityTooLarge|QuotaExceeded", "it is full: make room there"),
    ((405,), "[Rr]ead-only|MethodNotAllowed",
     "it can only be read: use an address that can be written"),
    ((401, 403), "Unauthori|Forbidden|Access|[Pp]ermission|PERMISSION|[Cc]redentials|[Ss]ignature",
     "user, password or token are wrong or missing, or may not do this: {names}"),
    ((404,), "NoSuchBucket|Not Found|ENDPOINT_NOT_FOUND",
     "there is no such repository or bucket: check the address"),
    ((), "", "no answer that can be used: check the address, the network and the server"),
)


def use(url: str, tracking: str, data: str, endpoint: str) -> int:
    """Set both addresses, by a repository of DagsHub's form or each by itself; return `check`."""
    if url:
        url = url.rstrip("/").removesuffix(".git")
        if len(urlsplit(url).path.strip("/").split("/")) != 2:
            raise UserError(f"The address {without_credentials(url)} must be "
                            "https://HOST/OWNER/REPO; for other servers give the tracking server "
                            "and the DVC remote each by itself.")
        tracking, data, endpoint = f"{url}.mlflow", "s3://dvc", f"{url}.s3"
    _check_address("tracking server", tracking, ("http", "https"))
    _check_address("DVC remote", data, ("", "s3", "http", "https", "ssh"))
    _check_address("endpoint", endpoint, ("http", "https"))
    if tracking:
        write_whole(root() / "remote.yaml", "# Where runs are tracked; written by nbproof remote. "
                                            f"It holds no secret.\ntracking: {tracking}\n")
    if data:
        options = {"url": data}
        if data.startswith(("http", "s3")):
            options["verify"] = True  # unverified, DVC accepts a damaged file
        if data.startswith("http"):
            options["method"] = "PUT"
        elif endpoint:
            options["endpointurl"] = endpoint
        with Config(str(root() / ".dvc"), validate=False).edit("repo") as config:
            config.setdefault("core", {})["remote"] = NAME
            config.setdefault("remote", {})[NAME] = options
    print(f"Tracking: {tracking or 'unchanged'}; data and models: {data or 'unchanged'} "
          f"{endpoint and f'at {endpoint}'}\nWritten to remote.yaml and .dvc/config, which belong "
          "in git: they hold no secret.")
    return check()


def unset() -> int:
    """Remove both addresses, and the credentials for them, which DVC would not accept alone."""
    (root() / "remote.yaml").unlink(missing_ok=True)
    for level in ("local", "repo"):
        with Config(str(root() / ".dvc"), validate=False).edit(level, validate=False) as config:
            if config.get("core", {}).get("remote") == NAME:
                del config["core"]["remote"]
            config.setdefault("remote", {}).pop(NAME, None)
    print("Everything stays on this machine: runs in mlflow.db, data and models in DVC's cache.")
    return 0


def _check_address(what: str, url: str, schemes: tuple[str, ...]) -> None:
    parts = urlsplit(url)
    if parts.password or (parts.username and parts.scheme != "ssh"):
        raise UserError(f"The address of the {what} carries a user or password: leave it out; "
                        "secrets come from the environment (nbproof secrets lists them).")
    if url and (parts.scheme not in schemes or re.search(r"[\s'\"#]", url)):
        kinds = " or ".join(f"{scheme}://" for scheme in schemes if scheme)
        raise UserError(f"The {what} {url!r} is no address: it must begin with {kinds}, and have "
                        "no space, quote or #.")


def check() -> int:
    """Make one authenticated call to each remote that is set; return 0 if each answers."""
    problems = {"Tracking server": _tracking_problem()}
    with dag.opened(root()) as repo:
        problems["DVC remote"] = data_problem(repo)
    problems = {name: problem for name, problem in problems.items() if problem is not None}
    for name, problem in problems.items():
        print(f"{name} {problem or 'answers.'}")
    if not problems:
        print("No remote is set: runs, data and models stay on this machine.")
    return 1 if any(problems.values()) else 0


def _tracking_problem() -> str | None:
    """Return what is wrong with the tracking server, "" if nothing, None where none is set."""
    from mlflow.exceptions import MlflowException

    if address() == local_address():
        return None
    try:
        client().search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        names = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        return f"{without_credentials(address())}: {_reason(str(error), names)}"
    return ""


def data_problem(repo: Repo, names: str = "") -> str | None:
    """Return the same of the DVC remote of `repo`; `names` says where its credentials are."""
    if not (name := repo.config["core"].get("remote")):
        return None
    settings = repo.config["remote"][name]
    url = settings["url"]
    if url.startswith("s3"):  # botocore waits for minutes otherwise
        os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")
        settings |= {"connect_timeout": 5, "read_timeout": 15}
    try:
        remote = repo.cloud.get_remote(name)
        if url.startswith("s3"):
            remote.fs.ls(remote.path.split("/")[0])  # an empty folder in a bucket does not exist
        elif url.startswith("http"):
            remote.fs.fs.info(f"{url.rstrip('/')}/files")  # exists() takes any failure for a no
        else:
            remote.fs.exists(remote.path)
    except Exception as error:  # each kind of remote has its own errors, down to the system's
        trace()
        cause = error.__cause__
        status, missing = getattr(cause, "status", 0), isinstance(error, FileNotFoundError)
        if missing and url.startswith("http"):  # also of a connection that is refused
            if not cause or status == 404:
                return ""  # it answers: nothing was pushed yet
        elif missing:
            status = 404
        words = " ".join(f"{type(one).__name__}: {one}" for one in (error, cause) if one)
        return f"{without_credentials(url)}: {_reason(words, names or _names(url), status)}"
    return ""


def _names(url: str) -> str:
    """Return where the credentials of the DVC remote `url` are."""
    keys = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return keys if url.startswith("s3") else "user and password in .dvc/config.local or ~/.netrc"


def _reason(error: str, names: str, status: int = 0) -> str:
    """Return what to do about an error of any library, and the library's words."""
    if not status and (found := re.search(r"error code (\d{3})\b|\b(\d{3}), message=", error)):
        status = int(found[1] or found[2])
    sentence = next(sentence for codes, words, sentence in REASONS
                    if status in codes or status not in (401, 404, 405, 507)
                    and re.search(words, error))
    return f"{sentence.format(names=names)} ({without_credentials(error)})."


def transfer(direction: str) -> int:
    """Run `dvc push` or `dvc pull`; where it fails, print why in one sentence and return 1."""
    with dag.opened(root()) as repo:
        name = repo.config["core"].get("remote")
        url = repo.config["remote"][name]["url"] if name else ""
    if not url:
        raise UserError("No DVC remote is set: nbproof remote sets one (nbproof remote --help).")
    done = subprocess.run([sys.executable, "-m", "dvc", direction], cwd=root(), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode == 0:
        print((done.stdout.strip() or "Everything is up to date.").splitlines()[-1])
        if direction == "push" and (data := data_in_use()):
            print(f"These are the results of {data}.")
        return 0
    what = "Not everything reached" if direction == "push" else "Not everything came from"
    print(f"{what} the DVC remote {without_credentials(url)}: {_reason(done.stdout, _names(url))} "
          f"What went through stays; nbproof {direction} again does the rest.", file=sys.stderr)
    return 1


def secrets() -> int:
    """Print which secrets are set here, never a value."""
    for name, meaning in SECRETS.items():
        print(f"{name:26} {'set    ' if os.environ.get(name) else 'not set'}  {meaning}")
    print("Those of an HTTP remote of DVC are in .dvc/config.local or ~/.netrc; those of workflows "
          "in the repository's settings on GitHub.")
    return 0
