"""MLflow models as outputs: the same model gives the same bytes, on whatever machine, at whatever time."""

import contextlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import output

VARIES = ("model_uuid", "model_id", "run_id", "utc_time_created", "artifact_path", "model_size_bytes")


def save_model(name: str, save: Callable[[Path], None]) -> Path:
    """Let `save(folder)` write an MLflow model with a signature, and make it the output models/NAME, whole.

    `save` calls, for example, `mlflow.sklearn.save_model(model, folder, signature=..., pip_requirements=[...])`;
    MLflow takes seconds to guess requirements that are not given. Times, ids and facts of this machine are taken out.
    """
    tracking.settle()
    place = output(f"models/{name}")
    beside = place.with_name(f".{name}.{os.getpid()}")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            save(beside)
        _describe(name, beside)
        for archive in beside.rglob("*.skops"):
            archive.write_bytes(_plain(archive.read_bytes()))
        shutil.rmtree(place, ignore_errors=True)
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def _describe(name: str, folder: Path) -> None:
    """Rewrite the description of a saved model; UserError if it is none, or lacks a signature."""
    import yaml

    described = folder / "MLmodel"
    if not described.is_file():
        raise UserError(f"models/{name} is no MLflow model: save(folder) wrote no file MLmodel into the folder.")
    facts = yaml.safe_load(described.read_text(encoding="utf-8"))
    if not (facts.get("signature") or {}).get("inputs"):
        raise UserError(f"models/{name} has no signature: save it with signature=infer_signature(INPUT, OUTPUT).")
    facts = {key: value for key, value in facts.items() if key not in VARIES}
    for flavor in facts["flavors"].values():  # both name the Python of this machine
        flavor.pop("python_version", None)
        flavor.pop("env", None)
    described.write_text(yaml.safe_dump(facts), encoding="utf-8")
    for extra in ("conda.yaml", "python_env.yaml"):
        (folder / extra).unlink(missing_ok=True)
    for file in filter(Path.is_file, (described, folder / "requirements.txt")):
        text = re.sub(r"(?m)((==|version: )[\w.]+)\+[\w.]+$", r"\1", file.read_text(encoding="utf-8"))
        file.write_text(text, encoding="utf-8")  # 2.1.0+cpu and 2.1.0+cu126 are one version


def _plain(archive: bytes) -> bytes:
    """A ZIP archive of skops or NumPy without times; its objects have numbers in order, not their places in memory."""
    numbers: dict[int, int] = {}
    names: dict[str, str] = {}

    def renumber(node: dict) -> dict:
        if isinstance(node.get("__id__"), int):
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers))
        if isinstance(node.get("file"), str):
            node["file"] = names.setdefault(node["file"], f"{len(names)}{Path(node['file']).suffix}")
        if "_stop_words_id" in node:  # scikit-learn's text vectorizers remember a place in memory, too
            node["_stop_words_id"]["content"] = "0"
        return node

    plain = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(plain, "w") as new:
        contents = {name: old.read(name) for name in old.namelist()}
        if schema := contents.get("schema.json"):
            contents["schema.json"] = json.dumps(json.loads(schema, object_hook=renumber)).encode()
        for name, content in sorted((names.get(name, name), content) for name, content in contents.items()):
            new.writestr(zipfile.ZipInfo(name), _plain(content) if name.endswith(".npz") else content)
    return plain.getvalue()
