"""Print what the registered champion predicts: its ONNX file if it has one, else by MLflow."""

import atexit
import contextlib
import hashlib
import io
import json
import sys
import tempfile
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import CONTRACT, root
from nbproof.notebook.tracking import address, artifacts, client, without_credentials
from nbproof.pipeline import config
from nbproof.tracking.registry import recorded, version_of

ABSTAINS = "I do not know: it is unlike anything that the model learned from."
CODE = ("The champion runs code when it is loaded (a pickle, or modules of its own), so it was not "
        f"loaded; where you trust who made it, write pickle: true in {CONTRACT}.")


def predict(paths: list[Path]) -> int:
    """Print the predictions for the files at `paths`: CSV, or what the hook `answer` returns."""
    project = config.load()
    prepare, answer = project.hook("prepare"), project.hook("answer")
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} is not there, or no file.")
        if not prepare and path.suffix.lower() not in (".csv", ".json"):
            raise UserError(f"{path} must be a table: a .csv or a .json file.")
    model, source = prepare and _onnx() or (None, "")
    if model:
        rows = _onnx_rows(model, prepare(paths, model.facts.metadata), logits=bool(answer))
    else:
        model, source = _mlflow()
        if prepare:
            rows = _outputs(model.predict, prepare(paths, model.metadata.metadata or {}))
            rows = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
        else:
            rows = []
            _print_table(model, paths)
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
    """Return the champion's ONNX model and its source; None where it has no ONNX file.

    A file that is damaged, or another one than was registered or recorded, is refused. Neither
    MLflow nor the framework of the model is imported: a tenth of their time.
    """
    try:
        from nbproof.serve.store import Store, Unreachable
    except ImportError:  # a project without onnxruntime
        return None
    store, reason = Store(), "has no champion yet"
    try:
        if facts := store.find("champion"):
            has_onnx = "portable_digest" in facts.tags
            return (store.load(facts), _source(facts.version, facts.tags)) if has_onnx else None
    except Unreachable as error:
        reason = f"does not give the champion ({error})"
    if not (model := store.here()):
        return None
    path = model.facts.source
    md5 = hashlib.md5((root() / path).read_bytes(), usedforsecurity=False).hexdigest()
    outputs = recorded(model.facts.name).get("outs", ())
    if any(out["path"] == path and out["md5"] != md5 for out in outputs):
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
    trained = f", trained with {tags['data']}" if tags.get("data") else ""
    return f"version {version}: {tags.get('model')}{trained}"


def _instead(reason: str, path: str) -> str:
    print(f"MLflow at {without_credentials(address())} {reason}. {path} of this folder is used "
          "instead.", file=sys.stderr)
    return path


def _mlflow():
    """Return the champion as an MLflow model and its source; else the model of this folder."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    folder, reason = "", "has no champion yet"
    try:
        store = client()
        if version := version_of(store, "champion"):
            copies = tempfile.TemporaryDirectory()
            atexit.register(copies.cleanup)  # a model may read its files late
            path = f"{artifacts(store.get_run(version.run_id))}/model"
            folder = download_artifacts(path, dst_path=copies.name,
                                        tracking_uri=store.tracking_uri)
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
    except (mlflow.MlflowException, ImportError) as error:
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
    inputs = pd.concat({str(path): _table(path, schema) for path in paths}, names=["file", "row"])
    index = inputs.index if len(paths) > 1 else inputs.index.droplevel("file")
    inputs = inputs.reset_index(drop=True)
    unnamed = schema.is_tensor_spec() and not schema.has_input_names()
    outputs = _outputs(model.predict, inputs.to_numpy() if unnamed else inputs)
    if not isinstance(outputs, pd.DataFrame):
        outputs = pd.DataFrame(np.asarray(outputs).reshape(len(inputs), -1))
        outputs = outputs.rename(columns=lambda number: f"prediction_{number + 1}")
        if len(outputs.columns) == 1:
            outputs.columns = ["prediction"]
    outputs.set_index(index).to_csv(sys.stdout, lineterminator="\n")


def _table(path: Path, schema):
    """Return the rows of a CSV or JSON file in the types of the signature, numbered from 1.

    JSON (an object, a list of objects, an object of columns) goes through CSV, so that the same
    cells mean the same. Texts stay as they are; of other types an empty cell is null.
    """
    import pandas as pd

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            content = json.loads(text)
            single = isinstance(content, dict) and list not in map(type, content.values())
            table = pd.DataFrame([content] if single else content, dtype=object)
            text = table.to_csv(index=False)
        header = list(pd.read_csv(io.StringIO(text), nrows=0))
        names = schema.input_names() if schema.has_input_names() else header
        kinds = [spec.type.to_pandas() if hasattr(spec.type, "to_pandas") else spec.type
                 for spec in schema.inputs] * len(names)
        kinds = {name: kind for name, kind in zip(names, kinds) if name in header}
        texts = [name for name, kind in kinds.items() if getattr(kind, "kind", "O") in "OU"]
        dates = [name for name, kind in kinds.items() if getattr(kind, "kind", "") == "M"]
        table = pd.read_csv(
            io.StringIO(text), usecols=list(kinds), parse_dates=dates, keep_default_na=False,
            dtype={name: str if name in texts else kinds[name] for name in kinds
                   if name not in dates},
            na_values={name: [""] for name in kinds if name not in texts})
        if table.empty:
            raise ValueError("it has no rows")
    except ValueError as error:  # of pandas, JSON and Unicode
        raise UserError(f"{path} is no table of the champion's inputs: "
                        f"{without_credentials(str(error))}.") from None
    if unused := sorted(set(header) - set(kinds)):
        print(f"{path}: the champion does not use {', '.join(unused)}.", file=sys.stderr)
    return table.set_axis(range(1, len(table) + 1))
