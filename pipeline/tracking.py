"""The tracking store, as the commands see it: where it is, and a client that does not wait for long."""

import os
import re

from ruamel.yaml import YAML

from pipeline import ROOT

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}
LOCAL = f"sqlite:///{(ROOT / 'mlflow.db').as_posix()}"


def address() -> str:
    """MLFLOW_TRACKING_URI, or `tracking` in remote.yaml, or the SQLite file at the project's root."""
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    remote = ROOT / "remote.yaml"
    named = YAML(typ="safe").load(remote.read_text(encoding="utf-8")) if remote.exists() else None
    return (named or {}).get("tracking") or LOCAL


def client(store: str = ""):
    """An MLflow client of the store at `store`, or at `address()`; it gives a server up after some 20 s."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    return mlflow.MlflowClient(store or address())


def without_credentials(text: str) -> str:
    """`text` on one line of at most 300 characters, with user and password cut out of every address in it."""
    return " ".join(re.sub(r"://[^/\s]*@", "://", text).split())[:300]
