"""MLflow models as outputs: the same model gives the same bytes, on any machine, at any time."""

import contextlib
import io
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import output

VARIES = {"model_uuid", "model_id", "run_id", "utc_time_created", "artifact_path",
          "model_size_bytes"}


def save_model(name: str, save: Callable[[Path], None]) -> Path:
    """Let `save(folder)` write an MLflow model, and make it the output models/NAME, whole.

    `save` calls, say, `mlflow.sklearn.save_model(model, folder, signature=..., pip_requirements=
    [...])`; without requirements MLflow takes seconds to guess them. UserError if it saves no
    model, or one without a signature; the earlier one stays then.
    """
    path = output(f"models/{name}")
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=path.parent) as folder:
        beside = Path(folder) / name
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            save(beside)
        _describe(name, beside)
        for archive in beside.rglob("*.skops"):
            archive.write_bytes(_without_times(archive.read_bytes()))
        shutil.rmtree(path, ignore_errors=True)
        beside.rename(path)
    return path


def _describe(name: str, folder: Path) -> None:
    """Take out of a saved model's description what differs by machine, or raise UserError."""
    import yaml

    described = folder / "MLmodel"
    facts = yaml.safe_load(described.read_text(encoding="utf-8")) if described.is_file() else {}
    if not (facts.get("signature") or {}).get("inputs"):
        raise UserError(f"models/{name} is no MLflow model with a signature: save(folder) must "
                        "save one, with signature=infer_signature(INPUT, OUTPUT).")
    facts = {key: value for key, value in facts.items() if key not in VARIES}
    for flavor in facts["flavors"].values():  # both name the Python of this machine
        flavor.pop("python_version", None)
        flavor.pop("env", None)
    described.write_text(yaml.safe_dump(facts), encoding="utf-8")
    (folder / "conda.yaml").unlink(missing_ok=True)
    (folder / "python_env.yaml").unlink(missing_ok=True)
    for file in filter(Path.is_file, (described, folder / "requirements.txt")):
        text = file.read_text(encoding="utf-8")  # 2.1.0+cpu and 2.1.0+cu126 are one version
        text = re.sub(r"(?m)((==|version: )[\w.]+)\+[\w.]+$", r"\1", text)
        file.write_text(text, encoding="utf-8")


def _without_times(archive: bytes) -> bytes:
    """Return a ZIP archive of skops or NumPy without times; numbers replace places in memory."""
    names: dict[object, object] = {}

    def renumber(node: dict) -> dict:
        if "__id__" in node:
            node["__id__"] = names.setdefault(node["__id__"], len(names))
        if isinstance(file := node.get("file"), str):
            node["file"] = names.setdefault(file, f"{len(names)}{Path(file).suffix}")
        if "_stop_words_id" in node:  # of scikit-learn's text vectorizers
            node["_stop_words_id"]["content"] = "0"
        return node

    plain = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(plain, "w") as new:
        contents = {name: old.read(name) for name in old.namelist()}
        if schema := contents.get("schema.json"):
            contents["schema.json"] = json.dumps(json.loads(schema, object_hook=renumber)).encode()
        for name, content in sorted((names.get(name, name), contents[name]) for name in contents):
            content = _without_times(content) if name.endswith(".npz") else content
            new.writestr(zipfile.ZipInfo(name), content)
    return plain.getvalue()
