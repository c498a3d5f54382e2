"""Asks the registered champion, by its ONNX file where it has one, else by MLflow. Needs nothing of its notebook."""

import contextlib
import io
import json
import sys
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.notebook.tracking import Unusable, address, client, without_credentials
from nbproof.pipeline import config


def predict(paths: list[Path]) -> int:
    """Print the champion's answers to what the files at `paths` hold: as CSV, or each as the hook `answer` words it."""
    contract = config.load()
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path} is {'a folder, not a file' if path.is_dir() else 'not there'}.")
        if not path.stat().st_size:
            raise UserError(f"{path} is empty.")
        if "prepare" not in contract.hooks and path.suffix.lower() not in (".csv", ".json"):
            raise UserError(f"{path} must be a table: a .csv or a .json file.")
    if not paths:
        raise UserError("Name at least one file with what the model is to be asked.")
    prepare = contract.hook("prepare")
    if prepare and (found := _portable()):
        place = _say(*found, prepare(paths, found[0].facts.metadata), contract.hook("answer"))
        print(f"Answered by the champion, {place}.", file=sys.stderr)
        return 0
    model, place = _champion()
    if prepare:
        outputs, answer = _asked(model, prepare(paths, model.metadata.metadata or {})), contract.hook("answer")
        for place, each in enumerate(outputs.to_dict("records") if hasattr(outputs, "to_dict") else outputs):
            print(answer(each, place) if answer else json.dumps(each, default=lambda value: value.tolist()))
    else:
        _print_table(model, paths)
    print(f"Answered by the champion, {place}.", file=sys.stderr)
    return 0


def _portable():
    """The champion as an ONNX file, from the registry or from this folder, and where it was; None where there is none.

    It takes neither MLflow nor the framework of the model: a tenth of their time.
    """
    try:
        from nbproof.serve.store import Store, Unreachable
    except ImportError:  # a project without onnxruntime
        return None
    store = Store()
    try:
        if facts := store.find("champion"):
            return store.load(facts), _place(facts)
        if store.local and (model := store.here()):
            place = model.facts.source
            print(f"MLflow at {without_credentials(address())} has no champion yet. {place} of this folder is asked "
                  "instead.", file=sys.stderr)
            return model, place
    except (UserError, Unreachable):
        pass  # no such file, or none that can be had now: what is wrong with the store, _champion says
    return None


def _place(facts) -> str:
    """The version and the model, and whether it knows other data than params.yaml names."""
    version = facts.version if facts.version.startswith("run ") else f"version {facts.version}"
    return f"{version}: {facts.name}{_other_data(facts.tags)}"


def _other_data(tags: dict[str, str]) -> str:
    from nbproof.tracking.registry import data_in_use

    key, _, now = (data_in_use() if (root() / "params.yaml").exists() else "").partition(": ")
    data = tags.get("data", now)
    return "" if data == now or not now else f", which knows {key}: {data}; params.yaml says {now}"


def _say(model, place: str, inputs, answer) -> str:
    """Print what an ONNX model says of each case, or that it does not know; `place` again.

    The hook `answer` gets what the model itself would give it: the logarithms of the probabilities are logits, too.
    """
    import numpy as np

    try:
        said = model.ask({model.inputs[0].name: inputs})
    except Exception as error:  # of onnxruntime, which has a class for each of its troubles
        raise UserError(f"The champion cannot answer that: {without_credentials(str(error))}") from None
    known = [True] * len(inputs) if said.strangeness is None else [model.knows(each) for each in said.strangeness]
    for case, (output, knows) in enumerate(zip(said.outputs, known)):
        if not knows:
            print("\n" * bool(case) + "I do not know: it is unlike anything that the model learned from."
                  if answer else "null")
        elif answer:
            print(answer(np.log(output.clip(1e-30)) if model.first == "probabilities" else output, case))
        else:
            print(json.dumps(output.tolist()))
    return place


def _champion():
    """The registered champion, or models/NAME of this folder where the store does not give one; and where it was."""
    from mlflow.exceptions import MlflowException

    from nbproof.tracking.registry import Registry, is_here

    store, entry = without_credentials(address()), None
    try:
        registry = Registry(client())
        if entry := registry.champion():
            by_run = f"runs:/{entry.run_id}/model"
            source = by_run if registry.by_runs else f"models:/{registry.name}@champion"
            return _loaded(source), f"{entry}: {entry.tags.get('model')}{_other_data(entry.tags)}"
        reason = f"MLflow at {store} has no champion yet"
    except (MlflowException, OSError, Unusable) as error:
        reason = f"MLflow at {store} does not give the champion: {without_credentials(str(error)).rstrip('.')}"
    folder = entry and is_here(entry)
    if not folder and (name := config.load().compared().get("champion")):
        folder = root() / "models" / name
    if not folder or not folder.is_dir():
        raise UserError(f"{reason}; nbproof run (or nbproof promote) registers one.")
    print(f"{reason}. models/{folder.name} of this folder is asked instead.", file=sys.stderr)
    sys.dont_write_bytecode = True  # a model that is code would leave files in the folder, which is a stage's output
    return _loaded(str(folder)), f"models/{folder.name}"


def _loaded(source: str):
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(address())
    mlflow.set_registry_uri(address())
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            model = mlflow.pyfunc.load_model(source)
    except MlflowException as error:
        if "MLFLOW_ALLOW_PICKLE_DESERIALIZATION" not in str(error):
            raise
        raise UserError("The champion's format (a pickle, say) runs code when it is loaded, so it was not loaded; where "
                      f"you trust who made it, write pickle: true in {config.CONTRACT}.") from None
    except ImportError as error:
        raise UserError(f"The champion needs a library that is not installed here: {error}.") from None
    if model.metadata.signature is None:
        raise UserError("The champion has no signature, which says what it can be asked: train it with one.")
    return model


def _asked(model, inputs):
    """The model's outputs; whatever it raises on these inputs becomes one sentence."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return model.predict(inputs)
    except Exception as error:  # the model is anybody's code
        raise UserError(f"The champion cannot answer that: {without_credentials(str(error))}") from None


def _print_table(model, paths: list[Path]) -> None:
    """Answer the rows of tables as CSV: the row's number (and file, where there are several), then the prediction."""
    import numpy as np
    import pandas as pd

    schema = model.metadata.get_input_schema()
    tables = [_checked(_table(path, schema), schema, path) for path in paths]
    inputs = pd.concat(tables, ignore_index=True)
    outputs = _asked(model, inputs if schema.has_input_names() or not schema.is_tensor_spec() else inputs.to_numpy())
    if not isinstance(outputs, pd.DataFrame):
        values = np.asarray(outputs).reshape(len(inputs), -1)
        several = [f"prediction_{number}" for number in range(1, values.shape[1] + 1)]
        outputs = pd.DataFrame(values, columns=several if len(several) > 1 else ["prediction"])
    rows = [(str(path), row) for path, table in zip(paths, tables) for row in range(1, len(table) + 1)]
    index = pd.MultiIndex.from_tuples(rows, names=["file", "row"])
    outputs.set_index(index if len(paths) > 1 else index.droplevel("file")).to_csv(sys.stdout, lineterminator="\n")


def _table(path: Path, schema):
    """The rows of a CSV file, or of a JSON file: a list of objects, one object, or an object of columns."""
    import pandas as pd

    try:
        if path.suffix.lower() == ".csv":
            texts = {each.name: str for each in schema.inputs if _dtype(each.type) is str}  # 007 stays 007
            table = pd.read_csv(path, dtype=texts)
        else:
            content = json.loads(path.read_text(encoding="utf-8"))
            is_row = isinstance(content, dict) and not any(isinstance(each, list) for each in content.values())
            table = pd.DataFrame([content] if is_row else content)
    except ValueError as error:  # of pandas, JSON and Unicode alike
        raise UserError(f"{path} is no table: {without_credentials(str(error)).rstrip('.')}.") from None
    if table.empty:
        raise UserError(f"{path} has no rows.")
    return table


def _checked(table, schema, path: Path):
    """The table's columns as the model's signature wants them; UserError names the column and what is expected."""
    kinds = [each.type for each in schema.inputs]
    if schema.has_input_names():
        types = {each.name: each.type for each in schema.inputs if each.required or each.name in table}
    else:
        shape = schema.inputs[0].shape if schema.is_tensor_spec() else (-1, len(kinds))
        if len(shape) != 2:
            raise UserError(f"The champion asks for arrays of the shape {shape}, which no table gives: the project needs "
                          "a hook `prepare`.")
        if shape[1] not in (-1, len(table.columns)):
            raise UserError(f"{path} must have {shape[1]} columns, found {len(table.columns)}.")
        types = dict(zip(table.columns, kinds * len(table.columns)))
    for wrong, names in (("lacks the", types.keys() - set(table)), ("has the unknown", set(table) - types.keys())):
        if names:
            raise UserError(f"{path} {wrong} column {min(names)!r}; the champion asks for {', '.join(types)}.")
    return table.assign(**{name: _typed(table[name], kind, path) for name, kind in types.items()})[list(types)]


def _dtype(kind):
    """The pandas type for a signature's `kind`; None for arrays and objects, which MLflow itself checks."""
    import numpy as np

    dtype = kind.to_pandas() if hasattr(kind, "to_pandas") else kind if isinstance(kind, np.dtype) else None
    return None if dtype is None else str if np.dtype(dtype).kind in "OUS" else np.dtype(dtype)


def _typed(column, kind, path: Path):
    """A column as the type `kind` of a signature, without loss; UserError says what was found."""
    dtype, reason = _dtype(kind), ""
    if dtype is None:
        return column
    try:
        values = column.astype(dtype)
        altered = column[(values != column) & column.notna()] if dtype is str or dtype.kind != "M" else column[:0]
        reason = f"found {altered.astype(object).iloc[0]!r}" if len(altered) else ""
    except (ValueError, TypeError) as error:
        reason = str(error)
    if reason:
        raise UserError(f"{path}: the column {column.name} must be {getattr(kind, 'name', kind)}: {reason}.")
    return values
