"""The DVC remote of the workflows. Its address and credentials come by environment variables and stay in this process: no file gets them."""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from pipeline import ROOT, Refused
from pipeline.github import lock

NAME = "storage"


def settings(environment: Mapping[str, str]) -> dict:
    """DVC's configuration for REMOTE_URL, REMOTE_ENDPOINT, REMOTE_USER and REMOTE_PASSWORD; empty where there is no REMOTE_URL."""
    url = environment.get("REMOTE_URL", "").strip()
    if not url:
        return {}
    remote = {"url": url, "verify": True}  # DVC would accept a corrupted file from an HTTP remote otherwise
    user, password, endpoint = (environment.get(f"REMOTE_{each}", "").strip() for each in ("USER", "PASSWORD", "ENDPOINT"))
    scheme = urlsplit(url).scheme
    if scheme in ("http", "https"):
        remote |= {"auth": "basic", "user": user, "password": password} if user or password else {}
        remote["method"] = "PUT"
    elif scheme == "s3":
        remote |= {"access_key_id": user, "secret_access_key": password} if user or password else {}
        remote |= {"endpointurl": endpoint} if endpoint else {}
    elif user or password:
        raise Refused(f"REMOTE_USER and REMOTE_PASSWORD are for remotes at http, https and s3 addresses; REMOTE_URL begins with {scheme or 'a path'!r}.")
    return {"core": {"remote": NAME}, "remote": {NAME: remote}}


def pull(base: str) -> str:
    """Bring what the remote has of this commit's outputs, and of the base's executed notebooks; says what came. Before `repro`, not after."""
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

    with Repo(str(ROOT), config=settings(os.environ)) as repo:
        if not repo.config["core"].get("remote"):
            return "No DVC remote is configured (the variable DVC_REMOTE_URL): everything is made from nothing."
        of_base = lock.at(base) if base else {}
        executed = [HashInfo("md5", out.md5) for path, out in of_base.items() if path.startswith("reports/") and path.endswith(".ipynb")]
        try:
            if executed:
                repo.cloud.pull(executed)  # for the report's comparison of outputs
            brought = repo.pull(allow_missing=True, force=True)
        except Exception as error:  # each kind of remote raises its own; the run goes on without it
            why = " ".join(str(error).split())[:200]
            return f"The DVC remote did not give everything ({type(error).__name__}: {why}); what is missing is made again."
    return f"From the DVC remote: {brought['stats']['fetched']} files fetched."
