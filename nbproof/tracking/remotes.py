"""One switch: where runs are tracked, and where data and models are kept. What it writes holds no secret."""

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
    "PUBLISH_APP_KEY": "private key of the GitHub App that commits results; workflows, environment publish",
}
VARIABLES = {
    "MLFLOW_TRACKING_URI": "tracking server: overrides remote.yaml; machine and workflows",
    "DVC_REMOTE_URL": "DVC remote of the workflows",
    "DVC_REMOTE_ENDPOINT": "its endpoint where it is S3-compatible; workflows",
    "RUNNER": "the runner that trains, a label or a JSON list of labels; workflows",
    "NBPROOF_CPU": "1: train with PyTorch's build for processors alone (make pins CPU=1 locks it); workflows",
    "DRIFT_RUNNER": "the runner that the server's log lies on, for `drift`; workflows",
    "SERVED": "the folder of that log there; workflows",
    "PAGES_URL": "where main's pages are published on GitHub Pages (not set: nowhere); workflows",
    "CML_SHA256": "checksum of CML's program, without which GitHub's own API posts; workflows",
    "PUBLISH_APP_ID": "client ID of the GitHub App that commits results (secret PUBLISH_APP_KEY); workflows",
}
# HTTP status, words in the message of whatever library, and one sentence that says what to do
REASONS = (
    (507, r"No space left|EntityTooLarge|QuotaExceeded|Insufficient Storage", "it is full: make room there."),
    (405, r"[Rr]ead-only|MethodNotAllowed|Method Not Allowed",
     "it can only be read: use an address that can be written."),
    (None, r"(?i)corrupt|checksum|hash mismatch|unexpected hash",
     "a file there is damaged and was not taken (nbproof run makes it again, nbproof push replaces it)."),
    (None, "Skew|not yet valid|certificate has expired", "its clock and this machine's differ: set the clock."),
    (401, "Unauthori|not authenticated|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken|"
     "[Cc]redentials|Authentication",
     "user, password or token are wrong or missing: {names} (nbproof secrets shows which are set)."),
    (403, "Forbidden|AccessDenied|PermissionError|Permission denied|PERMISSION_DENIED",
     "this account may not read it: look at {names}, and at the account's rights there."),
    (404, "NoSuchBucket|Not Found|ENDPOINT_NOT_FOUND", "there is no such repository or bucket: check the address."),
    (None, "[Tt]imed? ?out|Max retries|Connect|resolve|unreachable|refused|aborted|disconnected|payload is not",
     "no answer: the network or the server is down, or the address is wrong."),
)


def use(url: str, tracking: str, data: str, endpoint: str) -> int:
    """Set both addresses, of DagsHub's form by `url` or each by itself, then try them; 0 if all that is set answers."""
    if url:
        url = url.rstrip("/").removesuffix(".git")
        if len([part for part in urlsplit(url).path.split("/") if part]) != 2:
            raise UserError(f"The address {without_credentials(url)} must be https://HOST/OWNER/REPO; for other servers "
                          "give the tracking server and the DVC remote each by itself.")
        tracking, data, endpoint = f"{url}.mlflow", "s3://dvc", f"{url}.s3"
    _check_form("tracking server", tracking, ("http", "https"))
    _check_form("DVC remote", data, ("s3", "http", "https", "ssh"))
    _check_form("endpoint", endpoint, ("http", "https"))
    if tracking:
        text = f"# Where runs are tracked; written by nbproof remote. It holds no secret.\ntracking: {tracking}\n"
        write_whole(root() / "remote.yaml", text)
    if data:
        remote = {"url": data}
        if data.startswith("http"):
            remote |= {"verify": True, "method": "PUT"}  # unverified, DVC accepts a damaged file
        elif data.startswith("s3"):
            remote |= {"verify": True} | ({"endpointurl": endpoint} if endpoint else {})
        with Config(str(root() / ".dvc"), validate=False).edit("repo") as config:
            config.setdefault("core", {})["remote"] = NAME
            config.setdefault("remote", {})[NAME] = remote
    place = f"{data or 'unchanged'}{f' at {endpoint}' if endpoint else ''}"
    print(f"Tracking: {tracking or 'unchanged'}; data and models: {place}.")
    print("Written to remote.yaml and .dvc/config, which belong in git: they hold no secret.")
    return check()


def unset() -> int:
    """Back to local: no address in any file, and no credentials for one, which DVC would not accept alone."""
    (root() / "remote.yaml").unlink(missing_ok=True)
    for level in ("local", "repo"):
        with Config(str(root() / ".dvc"), validate=False).edit(level, validate=False) as config:
            if config.get("core", {}).get("remote") == NAME:
                del config["core"]["remote"]
            config.setdefault("remote", {}).pop(NAME, None)
    print("Everything stays on this machine: runs in mlflow.db, data and models in DVC's cache.")
    return 0


def _check_form(what: str, place: str, schemes: tuple[str, ...]) -> None:
    parts = urlsplit(place)
    if parts.password or (parts.username and parts.scheme != "ssh"):
        raise UserError(f"The address of the {what} carries a user or password: leave it out; secrets come from the "
                      "environment (nbproof secrets lists them).")
    if place and ("://" in place and parts.scheme not in schemes or "://" not in place and what != "DVC remote"):
        raise UserError(f"The {what} {place!r}: expected an address that begins with {':// or '.join(schemes)}://.")
    if re.search(r"[\s'\"#]", place):
        raise UserError(f"The {what} {place!r} is no address: it has a space, a quote or a #.")


def check() -> int:
    """One authenticated call to each remote that is set; 0 if each answers as it should."""
    tried = {"Tracking server": _tracking_problem(), "DVC remote": _data_problem()}
    tried = {name: problem for name, problem in tried.items() if problem is not None}
    for name, problem in tried.items():
        if problem:
            print(f"{name} {problem}")
    if not tried:
        print("No remote is set: runs, data and models stay on this machine.")
    elif not any(tried.values()):
        print(f"{' and '.join(tried)} {'answers' if len(tried) == 1 else 'answer'}.")
    return 1 if any(tried.values()) else 0


def _tracking_problem() -> str | None:
    """What is wrong with the tracking server, empty if nothing, None where none is set."""
    from mlflow.exceptions import MlflowException

    if address() == local_address():
        return None
    try:
        client().search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        status = error.get_http_status_code() if isinstance(error, MlflowException) else 0
        reason = _reason(str(error), "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD", status)
        return f"{without_credentials(address())}: {reason}"
    return ""


def _data_problem() -> str | None:
    """The same of the DVC remote."""
    with dag.opened(root()) as repo:
        return data_problem(repo)


def data_problem(repo: Repo, names: str = "") -> str | None:
    """The same of the DVC remote of `repo`; `names` says where its credentials come from."""
    if not (name := repo.config["core"].get("remote")):
        return None
    settings = repo.config["remote"][name]
    url = settings["url"]
    shown = without_credentials(url)
    if url.startswith("s3"):  # botocore waits for minutes otherwise
        os.environ.setdefault("AWS_MAX_ATTEMPTS", "2")
        settings |= {"connect_timeout": 5, "read_timeout": 15}
    try:
        remote = repo.cloud.get_remote(name)
        if url.startswith("s3"):
            remote.fs.ls(remote.path.split("/")[0])  # the bucket: an empty place in it does not exist in S3
        elif url.startswith("http"):
            remote.fs.fs.info(f"{url.rstrip('/')}/files")  # exists() takes every failure for a no
        else:
            remote.fs.exists(remote.path)
    except Exception as error:  # each kind of remote has its own errors, down to the system's
        trace()
        cause = error.__cause__
        missing, status = isinstance(error, FileNotFoundError), getattr(cause, "status", 0)
        if missing and url.startswith("s3"):
            return f"{shown}: there is no such bucket; check OWNER/REPO or the bucket's name."
        if not missing or cause and status != 404:  # a 404 is an answer: nothing was pushed yet
            words = f"{type(error).__name__}: {error} {type(cause).__name__}: {cause}"
            return f"{shown}: {_reason(words, names or _names(url), status)}"
    return ""


def _names(url: str) -> str:
    """Where the credentials of the DVC remote `url` are looked for."""
    keys = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return keys if url.startswith("s3") else "user and password in .dvc/config.local or ~/.netrc"


def _reason(error: str, names: str, status: int = 0) -> str:
    """An error of whatever library as one sentence that says what to do, by its HTTP status where it has one."""
    if not status and (found := re.search(r"error code (\d{3})\b|\b(\d{3}), message=", error)):
        status = int(found[1] or found[2])
    for code, words, sentence in REASONS:
        # S3 says 403 of a wrong key, of a clock that is wrong and of rights that are missing: its words tell which
        if code == status or status not in (401, 404, 405, 507) and re.search(words, error):
            return sentence.format(names=names)
    return without_credentials(error)


def transfer(direction: str) -> int:
    """`dvc push` or `dvc pull`; where it fails, why in one sentence. What went through stays."""
    with dag.opened(root()) as repo:
        name = repo.config["core"].get("remote")
        url = repo.config["remote"][name]["url"] if name else ""
    if not url:
        raise UserError("No DVC remote is set: nbproof remote sets one (nbproof remote --help).")
    done = subprocess.run([sys.executable, "-m", "dvc", direction], cwd=root(), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode == 0:
        print(without_credentials((done.stdout.strip() or "Everything is up to date.").splitlines()[-1]))
        if direction == "push" and (data := data_in_use()):
            print(f"These are the results of {data}.")
        return 0
    what = "Not everything reached" if direction == "push" else "Not everything came from"
    print(f"{what} the DVC remote {without_credentials(url)}: {_reason(done.stdout, _names(url))} What went through "
          f"stays; nbproof {direction} again does the rest.", file=sys.stderr)
    return 1


def secrets() -> int:
    """Which secrets and variables are set here, never a value."""
    for title, names in (("secrets", SECRETS), ("variables", VARIABLES)):
        print(f"{title}:")
        for name, meaning in names.items():
            print(f"  {name:26} {'set    ' if os.environ.get(name) else 'not set'}  {meaning}")
    local = root() / ".dvc" / "config.local"
    print(f".dvc/config.local (git-ignored): {'there' if local.exists() else 'not there'}")
    print("What the workflows have is in the repository's settings on GitHub.")
    return 0
