"""Read the registry without MLflow, which takes 150 MB and two seconds: by SQL, or by REST.

A version's files are those of its run: `model/`, `portable/NAME.onnx`, `answers/NAME.csv`.
"""

import base64
import contextlib
import json
import os
import sqlite3
from dataclasses import dataclass, field
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from nbproof.notebook.errors import UserError
from nbproof.notebook.tracking import address, artifacts, database, without_credentials
from nbproof.pipeline import config

TIMEOUT = 5  # seconds for a server to respond
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # MLflow's codes for no such alias
VERSION = """
SELECT json_object('version', v.version, 'run_id', v.run_id, 'tags', (
    SELECT json_group_array(json_object('key', key, 'value', value)) FROM model_version_tags t
    WHERE t.name = v.name AND t.version = v.version))
FROM registered_model_aliases a JOIN model_versions v ON v.name = a.name AND v.version = a.version
WHERE a.name = ? AND a.alias = ?"""


class RegistryError(UserError, OSError):
    """The registry does not respond now, or not as MLflow does; a later try may succeed."""


@dataclass(frozen=True)
class ModelVersion:
    """A version in the registry: its number, the model's name, its tags, and its run's id."""

    version: str
    model: str
    tags: dict[str, str] = field(default_factory=dict, compare=False)
    run_id: str = ""

    def __str__(self) -> str:
        return f"{self.model}, version {self.version}"


def current(alias: str) -> ModelVersion | None:
    """Return the version that `alias` names, None where it names none. Raise RegistryError."""
    names = {"name": config.load().name, "alias": alias}
    with _registry_error():
        if is_local():
            found = json.loads(_row(tuple(names.values())))
        else:
            found = json.loads(_get("api/2.0/mlflow/registered-models/alias", names))
            found = found and found["model_version"]
        if not found:
            return None
        tags = {tag["key"]: tag["value"] for tag in found.get("tags", ())}
        model = tags.get("model", "")  # whoever registers may have written a path
        is_name = config.NAME.fullmatch(model)
        return ModelVersion(str(found["version"]), is_name and model or "", tags, found["run_id"])


def read(version: ModelVersion, path: str) -> bytes | None:
    """Return the file `path` of a version, None if it has no such file. Raise RegistryError."""
    with _registry_error():
        if is_local():
            file = artifacts(version.run_id) / path
            return file.read_bytes() if file.is_file() else None
        # A server's 500 has many reasons, so its list of files tells whether there is one.
        where = {"run_id": version.run_id, "path": path.rpartition("/")[0]}
        listed = json.loads(_get("api/2.0/mlflow/artifacts/list", where)).get("files", ())
        if path not in [file["path"] for file in listed]:
            return None
        return _get("get-artifact", {"path": path, "run_uuid": version.run_id})


def is_local() -> bool:
    """Return whether the registry is a file of this project, and no server."""
    return address().startswith("sqlite:")


def _row(values: tuple[str, ...]) -> str:
    """Return the version of a name and an alias in the local store, as JSON; null for none."""
    path = database(address())
    if not path.exists() or not path.stat().st_size:
        return "null"
    store = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=TIMEOUT)
    with contextlib.closing(store):
        return (store.execute(VERSION, values).fetchone() or ["null"])[0]


def _get(path: str, query: dict[str, str]) -> bytes:
    """Return what the server sends; the JSON null where it has no such alias."""
    parts, environ = urlsplit(address()), os.environ
    server = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    user = environ.get("MLFLOW_TRACKING_USERNAME") or parts.username
    password = environ.get("MLFLOW_TRACKING_PASSWORD") or parts.password or ""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    token = environ.get("MLFLOW_TRACKING_TOKEN")
    request = Request(f"{server}/{path}?{urlencode(query)}")
    if token or user:  # and not to where the server redirects
        value = f"Bearer {token}" if token else f"Basic {pair}"
        request.add_unredirected_header("Authorization", value)
    try:
        with urlopen(request, timeout=TIMEOUT) as response:
            return response.read()
    except HTTPError as error:
        words = error.read().decode(errors="replace")  # only the first call reads them
        if error.code in (400, 404) and any(code in words for code in MISSING):
            return b"null"
        raise


@contextlib.contextmanager
def _registry_error():
    """Raise RegistryError for what a database, a disk, a network or another server brings."""
    store = without_credentials(address())
    try:
        yield
    except (sqlite3.Error, OSError, HTTPException) as error:  # urllib's HTTPError is an OSError
        reason = without_credentials(str(error))
        raise RegistryError(f"The registry at {store} cannot be read: {reason}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RegistryError(f"What responds at {store} is not MLflow") from None
