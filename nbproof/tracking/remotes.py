"""Where runs are tracked and data and models are kept; nothing written here holds a secret."""

import json
import os
import subprocess
import sys
from urllib.parse import urlsplit

from dvc.config import Config
from dvc.repo import Repo

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError, trace
from nbproof.notebook.files import root, write_whole
from nbproof.pipeline import dag

NAME = "origin"
ACCOUNT = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def use(url: str, server: str, data: str, endpoint: str) -> int:
    """Set both addresses, by a repository of DagsHub's form or each by itself; return `check`."""
    if url:
        url = url.rstrip("/").removesuffix(".git")
        server, data, endpoint = f"{url}.mlflow", "s3://dvc", f"{url}.s3"
    for parts in map(urlsplit, (server, data, endpoint)):
        if parts.password or (parts.username and parts.scheme != "ssh"):
            raise UserError(f"An address carries a user or password ({parts.hostname}): leave it "
                            f"out; they come from the environment ({ACCOUNT}, {KEYS}).")
    if server and not server.startswith(("http://", "https://")):  # MLflow takes it for a folder
        raise UserError(f"The tracking server {server!r} must begin with http:// or https://.")
    if server:
        write_whole(root() / tracking.REMOTE, "# Where runs are tracked; nbproof remote wrote it.\n"
                                              f"tracking: {json.dumps(server)}\n")
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
    print("Written to remote.yaml and .dvc/config, which belong in git: they hold no secret.")
    return check()


def check() -> int:
    """Make one authenticated call to each remote that is set; return 0 if each answers."""
    from mlflow.exceptions import MlflowException

    problems, server = {}, tracking.address()
    if server != tracking.local_address():
        try:
            tracking.client().search_experiments(max_results=1)
            problems["Tracking server"] = ""
        except (MlflowException, OSError) as error:
            problems["Tracking server"] = _sentence(server, str(error), ACCOUNT)
    with dag.opened(root()) as repo:
        if (problem := data_problem(repo)) is not None:
            problems["DVC remote"] = problem
    for name, problem in problems.items():
        print(f"{name} {problem or 'responds.'}")
    if not problems:
        print("No remote is set: runs, data and models stay on this machine.")
    return 1 if any(problems.values()) else 0


def _sentence(url: str, reason: str, names: str) -> str:
    """Return that `url` does not answer as it should, the library's `reason`, and what to do."""
    return (f"{tracking.without_credentials(url)} gives no usable response "
            f"({tracking.without_credentials(reason)}): check the address, the network, and what "
            f"it takes as user and password, {names}.")


def data_problem(repo: Repo, names: str = "") -> str | None:
    """Return what is wrong with the DVC remote of `repo`, "" if nothing, None where none is set.

    `names` says where its credentials are.
    """
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
        cause, is_web = error.__cause__, url.startswith("http")
        missing = isinstance(error, FileNotFoundError)
        # An HTTP remote answers, and nothing was pushed yet. Of a refused connection it is the
        # same error, with another cause.
        if is_web and missing and (not cause or getattr(cause, "status", 0) == 404):
            return ""
        where = KEYS if url.startswith("s3") else "those in .dvc/config.local or ~/.netrc"
        words = " ".join(f"{type(one).__name__}: {one}" for one in (error, cause) if one)
        return _sentence(url, words, names or where)
    return ""


def transfer(direction: str) -> int:
    """Run `dvc push` or `dvc pull`; return its exit code."""
    code = subprocess.run([sys.executable, "-m", "dvc", direction], cwd=root()).returncode
    if code:
        print(f"What went through stays: nbproof remote tests the DVC remote, and nbproof "
              f"{direction} again does the rest.", file=sys.stderr)
    return code
