"""Print what the registered champion predicts: its ONNX file if it has one, else by MLflow."""

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import CONTRACT, root
from nbproof.pipeline import config
from nbproof.tracking import versions

ABSTAINS = "I do not know: it is unlike anything that the model learned from."
CODE = ("The champion was not loaded, because that runs code of whoever made it (a pickle, modules "
        "of its own, and to MLflow any file of scikit-learn, also one of skops); where you trust "
        f"them, write pickle: true in {CONTRACT}.")


def predict(paths: list[Path]) -> int:
    """Print the predictions for the files at `paths`: CSV, or what the hook `answer` returns."""
    project = config.load()
    prepare, answer = project.hook("prepare"), project.hook("answer")
    version, source = _champion()
    has_onnx = (root() / f"models/{version.model}.onnx").exists()
    if version.run_id:
        has_onnx = "portable_digest" in version.tags
    with tempfile.TemporaryDirectory() as copy:  # a model may read its files late
        if prepare and has_onnx:
            rows = _onnx_rows(version, lambda facts: prepare(paths, facts), bool(answer))
        elif prepare:
            model = _load(version, copy)
            rows = _outputs(model.predict, prepare(paths, model.metadata.metadata or {}))
            rows = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
        else:
            _print_table(_load(version, copy), paths)
            rows = []
    for case, row in enumerate(rows):
        if answer:
            print("\n" * bool(case) + ABSTAINS if row is None else answer(row, case))
        else:
            print(json.dumps(row, default=lambda value: value.tolist()))
    print(f"Predicted by the champion, {source}.", file=sys.stderr)
    return 0


def _champion() -> tuple[versions.ModelVersion, str]:
    """Return the registered champion and where it is from; of none, this folder's, without run."""
    project = config.load()
    if version := versions.current("champion"):
        data = version.tags.get("data")
        trained = f", trained with {project.data}: {data}" if data else ""
        return version, f"version {version.version}: {version.model}{trained}"
    if name := project.compared().get("champion"):
        return versions.ModelVersion("", name), \
            f"models/{name} of this folder, which is not registered"
    raise UserError("There is no champion yet: nbproof run makes and registers one.")


def _outputs(model, inputs):
    """Return what `model` predicts; UserError where it, or MLflow's check of the inputs, raises."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return model(inputs)
    except Exception as error:  # a model is anybody's code; onnxruntime has a class for each error
        reason = tracking.without_credentials(str(error))
        raise UserError(f"The champion cannot predict from that: {reason}") from None


def _onnx_rows(version: versions.ModelVersion, prepared, logits: bool) -> list:
    """Return the ONNX model's first output for each case, None where it abstains.

    A file that is damaged or another one than was registered is refused. With `logits`, return the
    logarithms of probabilities: what MLflow's model gives the hook `answer`.
    """
    import numpy as np

    from nbproof.serve.model import load  # neither MLflow nor a model's framework

    model = load(version)
    predicted = _outputs(model.run, {model.inputs[0].name: prepared(model.metadata)})
    rows = predicted.outputs
    if logits and model.first == "probabilities":
        rows = np.log(rows.clip(1e-30))
    scores = [None] * len(rows) if predicted.ood_scores is None else predicted.ood_scores
    return [None if model.abstains(value) else row for row, value in zip(rows, scores)]


def _load(version: versions.ModelVersion, copy: str):
    """Return the MLflow model of a version; a server's files come to the folder `copy`.

    UserError where it cannot be loaded, or runs code that the project does not trust.
    """
    import mlflow

    store, folder = tracking.client(), str(root() / "models" / version.model)
    sys.dont_write_bytecode = True  # a model that is code would leave files in a stage's output
    trusted = str(config.load().pickle).lower()
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", trusted)
    mlflow.set_tracking_uri(store.tracking_uri)
    try:
        if version.run_id and versions.is_local():
            folder = str(tracking.artifacts(version.run_id) / "model")
        elif version.run_id:
            uri = f"{store.get_run(version.run_id).info.artifact_uri}/model"
            folder = mlflow.artifacts.download_artifacts(uri, dst_path=copy)
        flavors = mlflow.models.Model.load(folder).flavors
        loader = flavors.get("python_function", {}).get("loader_module", "")
        own_code = not loader.startswith("mlflow.") or loader.startswith("mlflow.pyfunc.") or any(
            flavor.get("code") or flavor.get("model_code_path") for flavor in flavors.values())
        if own_code and not config.load().pickle:
            raise UserError(CODE)
        with contextlib.redirect_stderr(io.StringIO()):
            model = mlflow.pyfunc.load_model(folder)
    except (mlflow.MlflowException, ImportError, OSError) as error:
        reason = tracking.without_credentials(str(error))
        pickled = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION" in reason
        raise UserError(CODE if pickled else f"The champion cannot be loaded: {reason}") from None
    if model.metadata.signature is None:
        raise UserError("The champion has no signature, which names its inputs: train it with one.")
    return model


def _print_table(model, paths: list[Path]) -> None:
    """Print the model's predictions for tables as CSV: the file, the row's number, the outputs."""
    import numpy as np
    import pandas as pd

    schema = model.metadata.get_input_schema()
    inputs = pd.concat({str(path): _table(path, schema) for path in paths}, names=["file", "row"])
    index, inputs = inputs.index, inputs.reset_index(drop=True)
    if schema.is_tensor_spec() and not schema.has_input_names():
        inputs = inputs.to_numpy()
    outputs = _outputs(model.predict, inputs)
    if not isinstance(outputs, pd.DataFrame):
        outputs = pd.DataFrame(np.asarray(outputs).reshape(len(inputs), -1)).rename(
            columns="prediction_{}".format)
    outputs.set_index(index).to_csv(sys.stdout, lineterminator="\n")


def _table(path: Path, schema):
    """Return the rows of a CSV or JSON file in the types of the signature, numbered from 1.

    JSON (a list of objects, or an object of columns) goes through CSV, so that the same cells mean
    the same. Texts stay as they are; of other types an empty cell is null. Columns that the model
    does not know, such as its target, are left out.
    """
    import pandas as pd
    from mlflow.exceptions import MlflowException

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            text = pd.DataFrame(json.loads(text), dtype=object).to_csv(index=False)
        header = list(pd.read_csv(io.StringIO(text), nrows=0))
        names = schema.input_names() if schema.has_input_names() else header
        types = {name: str if kind.kind in "OUSM" else kind  # MLflow reads dates
                 for name, kind in zip(names, schema.numpy_types() * len(names)) if name in header}
        table = pd.read_csv(
            io.StringIO(text), usecols=list(types), dtype=types, keep_default_na=False,
            na_values={name: [""] for name, kind in types.items() if kind is not str})
    except (ValueError, MlflowException) as error:  # of pandas, JSON, Unicode and the schema
        raise UserError(f"{path} is no table of the champion's inputs: "
                        f"{tracking.without_credentials(str(error))}.") from None
    return table.set_axis(range(1, len(table) + 1))
