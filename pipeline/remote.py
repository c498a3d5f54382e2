"""One switch: where runs are tracked and where data and models are kept. What it writes holds no secret."""

import os
import re
import subprocess
import sys
from urllib.parse import urlsplit

from dvc.config import Config

from pipeline import ROOT, Refused
from pipeline.environment import with_tools
from pipeline.stage.files import write_whole
from pipeline.tracking import client, without_credentials

NAME = "origin"
FILE = ROOT / "remote.yaml"
# Every variable that the commands (on a machine) and the workflows (on GitHub) read for a remote. Secrets first.
SECRETS = {
    "MLFLOW_TRACKING_USERNAME": "tracking server: user (DagsHub: your user name); machine and workflows",
    "MLFLOW_TRACKING_PASSWORD": "tracking server: password or token; machine and workflows",
    "AWS_ACCESS_KEY_ID": "S3 remote: key (DagsHub: the token); machine",
    "AWS_SECRET_ACCESS_KEY": "S3 remote: secret (DagsHub: the token again); machine",
    "DVC_READ_USER": "DVC remote: user or key that reads; workflows",
    "DVC_READ_PASSWORD": "its password or secret; workflows",
    "DVC_WRITE_USER": "DVC remote: user or key that writes; workflows, environment publish",
    "DVC_WRITE_PASSWORD": "its password or secret; workflows, environment publish",
}
VARIABLES = {
    "MLFLOW_TRACKING_URI": "tracking server: overrides remote.yaml; machine and workflows",
    "DVC_REMOTE_URL": "DVC remote of the workflows",
    "DVC_REMOTE_ENDPOINT": "its endpoint where it is S3-compatible; workflows",
    "RUNNER": "the runner that trains; workflows",
}


def use(url: str, tracking: str, data: str, endpoint: str) -> int:
    """Set both addresses: of DagsHub's form by `url` (https://HOST/OWNER/REPO), or each by itself; then try them. 0 if both answer."""
    if url:
        url = url.rstrip("/").removesuffix(".git")
        if len([part for part in urlsplit(url).path.split("/") if part]) != 2:
            raise Refused(f"URL={without_credentials(url)!r} must be https://HOST/OWNER/REPO; other servers: make remote TRACKING=... DATA=...")
        tracking, data, endpoint = f"{url}.mlflow", "s3://dvc", f"{url}.s3"
    _check_form("TRACKING", tracking, "http|https")
    _check_form("DATA", data, "s3|http|https|ssh")
    _check_form("ENDPOINT", endpoint, "http|https")
    if tracking:
        write_whole(FILE, f"# Where runs are tracked; written by make remote. It holds no secret.\ntracking: {tracking}\n")
    if data:
        with Config(str(ROOT / ".dvc"), validate=False).edit("repo") as config:
            config.setdefault("core", {})["remote"] = NAME
            config["remote"] = {NAME: _remote(data, endpoint)}
    print(f"Tracking: {tracking or 'unchanged'}; data and models: {data or 'unchanged'}{f' at {endpoint}' if endpoint else ''}.")
    print("Written to remote.yaml and .dvc/config, which belong in git: they hold no secret.")
    return check()


def unset() -> int:
    """Back to local: no address in any file, and no credentials for one, which DVC would not accept alone."""
    FILE.unlink(missing_ok=True)
    for level in ("local", "repo"):
        with Config(str(ROOT / ".dvc"), validate=False).edit(level, validate=False) as config:
            if config.get("core", {}).get("remote") == NAME:
                del config["core"]["remote"]
            config.setdefault("remote", {}).pop(NAME, None)
    print("Everything stays on this machine: runs in mlflow.db, data and models in DVC's cache.")
    return 0


def _check_form(name: str, address: str, schemes: str) -> None:
    if not address:
        return
    parts = urlsplit(address)
    if parts.password or (parts.username and parts.scheme != "ssh"):
        raise Refused(f"{name} carries a user or password: leave it out, secrets come from the environment (make secrets lists them).")
    if "://" in address and not re.fullmatch(schemes, parts.scheme):
        raise Refused(f"{name}={address!r}: expected an address that begins with {schemes.replace('|', ':// or ')}://.")
    if name != "DATA" and "://" not in address or not re.fullmatch(r"[^\s'\"#]+", address):
        raise Refused(f"{name}={address!r} is no address.")


def _remote(data: str, endpoint: str) -> dict:
    remote = {"url": data}
    if data.startswith("http"):
        remote |= {"verify": True, "method": "PUT"}  # unverified, DVC accepts a damaged file
    elif data.startswith("s3"):
        remote |= {"verify": True} | ({"endpointurl": endpoint} if endpoint else {})
    return remote


def check() -> int:
    """One authenticated call to each remote that is set; 0 if each answers as it should."""
    problems = list(filter(None, (_tracking_problem(), _data_problem())))
    for problem in problems:
        print(problem)
    if not problems:
        print("All that is set answers.")
    return 1 if problems else 0


def _tracking_problem() -> str:
    from mlflow.exceptions import MlflowException

    from pipeline.tracking import LOCAL, address

    store = address()
    if store == LOCAL:
        return ""
    try:
        client(store).search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        return f"The tracking server {without_credentials(store)}: {_what(str(error), 'MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD')}"
    return ""


def _data_problem() -> str:
    from pipeline.verify import opened

    with opened(ROOT) as repo:
        name = repo.config["core"].get("remote")
        if not name:
            return ""
        settings = repo.config["remote"][name]
        url = settings["url"]
        names = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if url.startswith("s3") else "user and password in .dvc/config.local or ~/.netrc"
        if url.startswith("s3"):  # botocore waits for minutes otherwise
            os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")
            settings |= {"connect_timeout": 5, "read_timeout": 15}
        try:
            remote = repo.cloud.get_remote(name)
            if url.startswith("s3"):
                remote.fs.ls(remote.path.split("/")[0])  # the bucket: a place in it that holds nothing yet does not exist in S3
            elif url.startswith("http"):
                remote.fs.fs.info(f"{url.rstrip('/')}/files")  # exists() takes every failure for a no
            else:
                remote.fs.exists(remote.path)
        except FileNotFoundError as error:
            if url.startswith("s3"):
                return f"The DVC remote {url}: there is no such bucket; check OWNER/REPO or the bucket's name."
            cause = error.__cause__
            if cause and getattr(cause, "status", None) != 404:  # a 404 is an answer: nothing was pushed yet
                return f"The DVC remote {url}: {_what(f'{type(cause).__name__}: {cause}', names)}"
        except Exception as error:  # each kind of remote has its own errors, down to the system's
            return f"The DVC remote {url}: {_what(f'{type(error).__name__}: {error} {error.__cause__ or str()}', names)}"
    return ""


def _what(error: str, names: str) -> str:
    """An error of whatever library, as one sentence that says what to do."""
    if re.search(r"\b507\b|No space left|EntityTooLarge|QuotaExceeded|Insufficient Storage", error):
        return "it is full: make room there."
    if re.search(r"\b405\b|[Rr]ead-only|MethodNotAllowed", error):
        return "it can only be read: use an address that can be written."
    if re.search(r"corrupt|checksum|hash mismatch|unexpected hash", error, re.IGNORECASE):
        return "a file there is damaged: it was not taken (make run makes it again, make push replaces it)."
    if re.search("Skew|not yet valid|certificate has expired", error):
        return "its clock and this machine's differ too much: set the clock."
    if re.search(r"401|Unauthori|not authenticated|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|[Cc]redentials|Authentication", error):
        return f"user, password or token are wrong or missing: {names} (make secrets shows which are set)."
    if re.search(r"403|Forbidden|AccessDenied|PermissionError|Permission denied|PERMISSION_DENIED", error):
        return f"this account may not read it: look at {names}, and at the account's rights there."
    if re.search(r"404|NoSuchBucket|Not Found|ENDPOINT_NOT_FOUND", error):
        return "there is no such repository or bucket: check the address."
    if re.search(r"[Tt]imed? ?out|Max retries|Connect|resolve|unreachable|refused|aborted|disconnected|payload is not completed", error):
        return "no answer: the network or the server is down, or the address is wrong."
    return without_credentials(error)


def transfer(direction: str) -> int:
    """`dvc push` or `dvc pull`; where it fails, why in one sentence. What went through stays, so that the next one completes it."""
    from pipeline.verify import opened

    with opened(ROOT) as repo:
        name = repo.config["core"].get("remote")
        url = repo.config["remote"][name]["url"] if name else ""
    if not url:
        raise Refused("No DVC remote is set: make remote URL=... (or DATA=...) sets one.")
    done = subprocess.run([sys.executable, "-m", "dvc", direction], cwd=ROOT, env=with_tools(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == 0:
        print(without_credentials(done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "Everything is up to date."))
        return 0
    names = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if url.startswith("s3") else "user and password in .dvc/config.local or ~/.netrc"
    what = "Not everything reached" if direction == "push" else "Not everything came from"
    print(f"{what} the DVC remote {without_credentials(url)}: {_what(done.stdout, names)} What went through stays; make {direction} again does the rest.",
          file=sys.stderr)
    return 1


def secrets() -> int:
    """Which secrets and variables are set here, never a value."""
    for title, names in (("secrets", SECRETS), ("variables", VARIABLES)):
        print(f"{title}:")
        for name, meaning in names.items():
            print(f"  {name:26} {'set    ' if os.environ.get(name) else 'not set'}  {meaning}")
    local = ROOT / ".dvc" / "config.local"
    print(f".dvc/config.local (git-ignored): {'there' if local.exists() else 'not there'}")
    print("What the workflows have is in the repository's settings on GitHub.")
    return 0
