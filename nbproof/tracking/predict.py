"""Print what the registered champion predicts: its ONNX file if it has one, else by MLflow."""

import atexit
import contextlib
import hashlib
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import CONTRACT, root
from nbproof.notebook.tracking import address, artifacts, client, without_credentials
from nbproof.pipeline import config
from nbproof.tracking.registry import data_in_use, recorded, version_of

ABSTAINS = "I do not know: it is unlike anything that the model learned from."
CODE = ("The champion runs code when it is loaded (a pickle, or modules of its own), so it was not "
        f"loaded; where you trust who made it, write pickle: true in {CONTRACT}.")


def predict(paths: list[Path]) -> int:
    """Print the predictions for the files at `paths`: CSV, or what the hook `answer` returns."""
    project = config.load()
    for path in paths:
        if not path.is_file() or not path.stat().st_size:
            raise UserError(f"{path} is not there, or no file, or empty.")
        if "prepare" not in project.hooks and path.suffix.lower() not in (".csv", ".json"):
            raise UserError(f"{path} must be a table: a .csv or a .json file.")
    if not paths:
        raise UserError("Name at least one file to predict from.")
    prepare, answer = project.hook("prepare"), project.hook("answer")
    model, source = _onnx() if prepare else (None, "")
    if model:
        rows = _onnx_rows(model, prepare(paths, model.facts.metadata), logits=bool(answer))
    else:
        model, source = _mlflow()
        if not prepare:
            _print_table(model, paths)
            rows = []
        else:
            rows = _outputs(model.predict, prepare(paths, model.metadata.metadata or {}))
            rows = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
    for case, row in enumerate(rows):
        if answer:
            print("\n" * bool(case) + ABSTAINS if row is None else answer(row, case))
        else:
            print(json.dumps(row, default=lambda value: value.tolist()))
    print(f"Predicted by the champion, {source}.", file=sys.stderr)
    return 0


def _outputs(model, inputs):
    """Return what `model` predicts; UserError where it, or MLflow's check of the inputs, raises."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return model(inputs)
    except Exception as error:  # a model is anybody's code; onnxruntime has a class for each error
        reason = without_credentials(str(error))
        raise UserError(f"The champion cannot predict from that: {reason}") from None


def _onnx():
    """Return the champion's ONNX model and its source; None, "" where it has no ONNX file.

    A file that is damaged, or another one than was registered or recorded, is refused. Neither
    MLflow nor the framework of the model is imported: a tenth of their time.
    """
    try:
        from nbproof.serve.store import Store, Unreachable
    except ImportError:  # a project without onnxruntime
        return None, ""
    store = Store()
    try:
        if facts := store.find("champion"):
            if "portable_digest" not in facts.tags:
                return None, ""
            return store.load(facts), _source(facts.version, facts.tags)
        reason = "has no champion yet"
    except Unreachable as error:
        reason = f"does not give the champion ({error})"
    if (model := store.here()) is None:
        return None, ""
    path = model.facts.source
    md5 = hashlib.md5((root() / path).read_bytes(), usedforsecurity=False).hexdigest()
    outputs = {out["path"]: out.get("md5") for out in recorded(model.facts.name).get("outs", ())}
    if outputs.get(path, md5) != md5:
        raise UserError(f"{path} is not the file that dvc.lock records: nbproof run makes it "
                        "again, nbproof pull brings it.")
    return model, _instead(reason, path)


def _onnx_rows(model, inputs, logits: bool) -> list:
    """Return the ONNX model's first output for each case, None where it abstains.

    With `logits`, the logarithms of probabilities: what MLflow's model gives the hook `answer`.
    """
    import numpy as np

    predicted = _outputs(model.ask, {model.inputs[0].name: inputs})
    rows = predicted.outputs
    if logits and model.first == "probabilities":
        rows = np.log(rows.clip(1e-30))
    distances = [None] * len(rows) if predicted.strangeness is None else predicted.strangeness
    return [row if model.knows(distance) else None for row, distance in zip(rows, distances)]


def _source(version: str, tags: dict[str, str]) -> str:
    """Return version and model, and its data where params.yaml names other data now."""
    used = data_in_use() if (root() / "params.yaml").exists() else ""
    key, _, now = used.partition(": ")
    data = tags.get("data", now)
    other = f", trained with {key}: {data}; params.yaml has {now}" if now and data != now else ""
    return f"version {version}: {tags.get('model')}{other}"


def _instead(reason: str, path: str) -> str:
    print(f"MLflow at {without_credentials(address())} {reason}. {path} of this folder is used "
          "instead.", file=sys.stderr)
    return path


def _mlflow():
    """Return the champion as an MLflow model and its source; else the model of this folder."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    folder = None
    try:
        store = client()
        version, reason = version_of(store, "champion"), "has no champion yet"
        if version:
            copies = tempfile.mkdtemp()
            atexit.register(shutil.rmtree, copies, ignore_errors=True)  # a model may read it late
            path = f"{artifacts(store.get_run(version.run_id))}/model"
            folder = download_artifacts(path, dst_path=copies, tracking_uri=store.tracking_uri)
    except (MlflowException, OSError, UserError) as error:
        reason = f"does not give the champion ({without_credentials(str(error)).rstrip('.')})"
    if folder:
        return _load(folder), _source(version.version, version.tags)
    path = f"models/{config.load().compared().get('champion')}"
    if not (root() / path).is_dir():
        raise UserError(f"MLflow at {without_credentials(address())} {reason}; nbproof run (or "
                        "nbproof promote) registers one.")
    return _load(str(root() / path)), _instead(reason, path)


def _load(folder: str):
    """Return the MLflow model in `folder`; UserError where it cannot be loaded, or runs code."""
    import mlflow
    from mlflow.exceptions import MlflowException

    sys.dont_write_bytecode = True  # a model that is code would leave files in a stage's output
    mlflow.set_tracking_uri(address())
    try:
        flavors = mlflow.models.Model.load(folder).flavors
        loader = flavors.get("python_function", {}).get("loader_module", "")
        foreign = not loader.startswith("mlflow.") or loader.startswith("mlflow.pyfunc.")
        code = any(flavor.get("code") or flavor.get("model_code_path")
                   for flavor in flavors.values())
        if (foreign or code) and not config.load().pickle:
            raise UserError(CODE)
        with contextlib.redirect_stderr(io.StringIO()):
            model = mlflow.pyfunc.load_model(folder)
    except (MlflowException, ImportError) as error:
        reason = without_credentials(str(error))
        pickled = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION" in reason
        raise UserError(CODE if pickled else f"The champion cannot be loaded: {reason}") from None
    if model.metadata.signature is None:
        raise UserError("The champion has no signature, which names its inputs: train it with one.")
    return model


def _print_table(model, paths: list[Path]) -> None:
    """Print predictions for tables as CSV: file (if several), number of the row, prediction."""
    import numpy as np
    import pandas as pd

    schema = model.metadata.get_input_schema()
    tables = {str(path): _table(path, schema) for path in paths}
    inputs = pd.concat(tables, names=["file", "row"])
    index = inputs.index if len(tables) > 1 else inputs.index.droplevel("file")
    inputs = inputs.reset_index(drop=True)
    unnamed = schema.is_tensor_spec() and not schema.has_input_names()
    outputs = _outputs(model.predict, inputs.to_numpy() if unnamed else inputs)
    if not isinstance(outputs, pd.DataFrame):
        values = np.asarray(outputs).reshape(len(inputs), -1)
        names = [f"prediction_{number + 1}" for number in range(values.shape[1])]
        outputs = pd.DataFrame(values, columns=names if len(names) > 1 else ["prediction"])
    outputs.set_index(index).to_csv(sys.stdout, lineterminator="\n")


def _table(path: Path, schema):
    """Return the rows of a CSV or JSON file in the types of the signature, numbered from 1.

    JSON is a list of objects, one object, or an object of columns; it goes through CSV, so that
    the same cells mean the same. Texts stay as they are, an empty cell is null.
    """
    import pandas as pd

    try:
        if path.suffix.lower() == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
            single = isinstance(content, dict) and not any(
                isinstance(values, list) for values in content.values())
            table = pd.DataFrame([content] if single else content, dtype=object)
        if table.empty:
            raise ValueError("it has no rows")
        names = schema.input_names() if schema.has_input_names() else list(table)
        kinds = [spec.type.to_pandas() if hasattr(spec.type, "to_pandas") else spec.type
                 for spec in schema.inputs] * len(names)
        kinds = {name: kind for name, kind in zip(names, kinds) if name in table}
        texts = [name for name, kind in kinds.items() if getattr(kind, "kind", "O") in "OU"]
        dates = [name for name, kind in kinds.items() if getattr(kind, "kind", "") == "M"]
        typed = pd.read_csv(
            io.StringIO(table.to_csv(index=False)), parse_dates=dates, keep_default_na=False,
            dtype={name: kinds[name] for name in kinds if name not in texts + dates},
            na_values={name: [""] for name in kinds if name not in texts})
    except ValueError as error:  # of pandas, JSON and Unicode
        raise UserError(f"{path} is no table of the champion's inputs: "
                        f"{without_credentials(str(error))}.") from None
    if unused := sorted(set(table) - set(kinds)):
        print(f"{path}: the champion does not use {', '.join(unused)}.", file=sys.stderr)
    for name in texts:
        typed[name] = table[name].map(str, na_action="ignore")
    return typed[list(kinds)].set_axis(range(1, len(typed) + 1))
