"""Where the model is that an alias names: the local store, an MLflow server, or the DVC outputs of this folder.

The store is read directly, by SQL or by MLflow's REST interface: MLflow itself would cost 150 MB and two seconds, and a
server must look often. Only the ONNX file and the text MLmodel are read, so a pickle in the registry never runs.
"""

import base64
import contextlib
import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, url2pathname, urlopen

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest, root
from nbproof.notebook.tracking import address, commit, database, without_credentials
from nbproof.pipeline import config
from nbproof.serve.model import Facts, Portable

PATIENCE = 5  # seconds for a server to answer
LARGEST = 2 << 30  # bytes of a model; ONNX itself allows no larger file


class Unreachable(Exception):
    """The registry does not answer now; what is served stays."""


class Store:
    """The registry of the project. `find` is cheap and is called every second, `load` brings a model into memory.

    `made` makes the model of the content of its file, its facts and the number of threads.
    """

    def __init__(self, threads: int = 1, made: Callable[..., Portable] = Portable):
        self.threads, self.made, self.name, self.address = threads, made, config.load().name, address()
        self.local = self.address.startswith("sqlite:")
        self.every = 1.0 if self.local else 3.0  # seconds between two looks

    def find(self, alias: str) -> Facts | None:
        """What `alias` names now, None where it names nothing; Unreachable if the registry does not say."""
        if self.local:
            return self._by_sql(alias)
        with _understood():
            return self._by_rest(alias)

    def load(self, facts: Facts) -> Portable:
        """The model of `facts`; UserError where it has no portable form, is damaged, or fails its check."""
        content = self._read(facts, f"portable/{facts.name}.onnx")
        if content is None:
            content = self._of_this_folder(facts)
        described = self._read(facts, "model/MLmodel") or b""
        return self.made(content, replace(facts, **_of_mlmodel(described)), self.threads)

    def here(self) -> Portable | None:
        """The champion of this folder: the model that metrics/COMPARE.json names, from the DVC outputs."""
        name = config.load().compared().get("champion", "")
        file = root() / "models" / f"{name}.onnx"
        if not name or not file.exists():
            return None
        return self.made(file.read_bytes(), described(name, "files"), self.threads)

    def _of_this_folder(self, facts: Facts) -> bytes:
        """The ONNX file of this folder, where it has the very model that was registered without one."""
        folder = root() / "models" / facts.name
        file = folder.with_name(f"{facts.name}.onnx")
        same = "/" not in facts.name and folder.is_dir() and digest(folder) == facts.tags.get("model_digest")
        if not same or not file.exists():
            raise UserError(f"{facts.name} ({facts.version}) is registered without an ONNX file, the only form that is "
                          "served: train it again (nbproof run), then nbproof promote.")
        return file.read_bytes()

    def _by_sql(self, alias: str) -> Facts | None:
        path = database(self.address)
        if not path.exists() or not path.stat().st_size:
            return None
        try:
            with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as opened:
                return _registered(opened, self.name, alias)
        except sqlite3.Error as error:
            if "no such table" in str(error):
                return None
            raise Unreachable(f"{path.name}: {error}") from None

    def _by_rest(self, alias: str) -> Facts | None:
        asked = f"registered-models/alias?{urlencode({'name': self.name, 'alias': alias})}"
        try:
            found = json.loads(self._get(f"api/2.0/mlflow/{asked}"))["model_version"]
        except HTTPError as error:
            said = error.read(10_000).decode(errors="replace")
            if error.code in (400, 404) and ("RESOURCE_DOES_NOT_EXIST" in said or "INVALID_PARAMETER" in said):
                return None
            raise Unreachable(f"it answers {error.code}") from None
        return Facts(str(found["version"]), _name(found), _tags(found), source=f"run {found['run_id']}")

    def _read(self, facts: Facts, path: str) -> bytes | None:
        """The artifact `path` of the run of `facts`, None if it is not there."""
        run = facts.source.removeprefix("run ")
        try:
            place = self._place_by_sql(run) if self.local else self._place_by_rest(run)
            if (file := _file(place)) is not None:
                return file.joinpath(path).read_bytes() if file.joinpath(path).is_file() else None
            if self.local:
                raise UserError(f"{facts.name} ({facts.version}) lies at {without_credentials(place)}, which only a "
                              "tracking server can give.")
            below = urlsplit(place).path.strip("/")
            if place.startswith("mlflow-artifacts:"):
                return self._get(f"api/2.0/mlflow-artifacts/artifacts/{quote(f'{below}/{path}')}")
            return self._get(f"get-artifact?{urlencode({'path': path, 'run_uuid': run})}")
        except HTTPError as error:
            if error.code in (404, 500):  # 500 is what MLflow's own server says of a file that is not there
                return None
            raise Unreachable(f"it answers {error.code}") from None
        except (OSError, sqlite3.Error) as error:
            raise Unreachable(str(error)) from None

    def _place_by_sql(self, run: str) -> str:
        path = database(self.address)
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as opened:
            found = opened.execute("SELECT artifact_uri FROM runs WHERE run_uuid = ?", (run,)).fetchone()
        return found[0] if found else ""

    def _place_by_rest(self, run: str) -> str:
        with _understood():
            answer = json.loads(self._get(f"api/2.0/mlflow/runs/get?run_id={quote(run)}"))
            return answer["run"]["info"]["artifact_uri"]

    def _get(self, path: str) -> bytes:
        address, headers = _without_user(self.address)
        try:
            asked = Request(f"{address.rstrip('/')}/{path}", None, headers)
            with urlopen(asked, timeout=PATIENCE) as answer:  # noqa: S310 - the person's own server
                return answer.read(LARGEST)
        except HTTPError:
            raise
        except (URLError, HTTPException, OSError, ValueError) as error:
            raise Unreachable(without_credentials(str(getattr(error, "reason", error)))) from None


@contextlib.contextmanager
def _understood():
    """Unreachable where what answers is not MLflow, but a page to sign on at, say."""
    try:
        yield
    except (ValueError, KeyError, TypeError):
        raise Unreachable("what answers there is not MLflow") from None


def described(name: str, version: str) -> Facts:
    """The facts of the model `name` of this folder's DVC outputs."""
    file, lock = root() / "models" / name / "MLmodel", root() / "dvc.lock"
    tags = {"git_commit": commit()} | ({"dvc_lock": digest(lock)} if lock.exists() else {})
    said = _of_mlmodel(file.read_bytes() if file.exists() else b"")
    return Facts(version, name, tags, source=f"models/{name}.onnx", **said)


def _of_mlmodel(described: bytes) -> dict:
    """What the text of an MLmodel says of the model's inputs: metadata for the hook `prepare`, and names of columns."""
    try:
        content = YAML(typ="safe", pure=True).load(described.decode()) or {}
        return {"metadata": content.get("metadata") or {}, "columns": _columns(content.get("signature"))}
    except (YAMLError, UnicodeDecodeError, AttributeError) as error:
        said = " ".join(str(error).split())[:150]
        raise UserError(f"The model's description (MLmodel) cannot be read: {said}.") from None


def _columns(signature: dict | None) -> tuple[str, ...]:
    """The names of the columns of a signature; none where it has no names, or another form."""
    try:
        inputs = json.loads(signature["inputs"])
        return tuple(str(each["name"]) for each in inputs if each["type"] != "tensor")
    except (ValueError, KeyError, TypeError):
        return ()


def _registered(database: sqlite3.Connection, name: str, alias: str) -> Facts | None:
    """What MLflow's own tables say that `alias` of the registered model `name` is."""
    found = database.execute(
        "SELECT v.version, v.run_id FROM registered_model_aliases a JOIN model_versions v "
        "ON v.name = a.name AND v.version = a.version WHERE a.name = ? AND a.alias = ?", (name, alias)).fetchone()
    if found is None:
        return None
    asked = "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?"
    tags = dict(database.execute(asked, (name, found[0])).fetchall())
    return Facts(str(found[0]), _safe(tags.get("model", "")), tags, source=f"run {found[1]}")


def _tags(found: dict) -> dict[str, str]:
    return {each["key"]: each["value"] for each in found.get("tags", ())}


def _name(found: dict) -> str:
    return _safe(_tags(found).get("model", ""))


def _safe(name: str) -> str:
    """A model's name as it may stand in a path; whoever registers may have written anything."""
    return name if config.NAME.fullmatch(name) else ""


def _file(place: str) -> Path | None:
    """The folder of this machine at the address `place`; a project that was moved has its artifacts with it."""
    parts = urlsplit(place)
    if parts.scheme not in ("", "file"):
        return None
    path = Path(url2pathname(parts.path))
    moved = root() / "mlartifacts" / place.rpartition("/mlartifacts/")[2]
    return path if path.is_dir() or "/mlartifacts/" not in place else moved


def _without_user(place: str) -> tuple[str, dict[str, str]]:
    """The address of a server, and the headers by which MLflow's own client says who asks."""
    parts = urlsplit(place)
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or parts.username or ""
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or parts.password or ""
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return plain, {"Authorization": f"Bearer {token}"}
    if not user:
        return plain, {}
    return plain, {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
