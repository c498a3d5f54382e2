"""MLflow's scoring protocol: the body of POST /invocations as arrays, every value checked."""

import csv
import io
import math

import numpy as np
import orjson
from starlette.exceptions import HTTPException

from nbproof.serve.model import TYPES, OnnxModel

KEYS = ("dataframe_split", "dataframe_records", "instances", "inputs")
MAX_CASES = 10_000  # in one request


def wrong(message: str) -> HTTPException:
    """Return the error of a request that the client must change."""
    return HTTPException(400, message)


def parse(body: bytes, kind: str, model: OnnxModel) -> dict[str, np.ndarray]:
    """Return an array for each input of `model`; HTTPException says what is wrong."""
    kind = kind.partition(";")[0].strip().lower()
    if kind not in ("text/csv", "application/json", ""):
        raise HTTPException(415, "The content type must be application/json or text/csv.")
    try:
        if kind == "text/csv":
            columns, *rows = csv.reader(io.StringIO(body.decode("utf-8-sig")))
            found = _table(columns, rows, model, is_csv=True)
        else:
            found = _inputs(orjson.loads(body), model)  # which reads no NaN
    except (ValueError, csv.Error) as error:
        raise wrong(f"The body cannot be read: {str(error)[:150]}.") from None
    lengths = {len(array) for array in found.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise wrong("All inputs must have the same number of cases, and at least one; found "
                    f"{', '.join(map(str, sorted(lengths)))}.")
    if max(lengths) > MAX_CASES:
        raise HTTPException(413, f"One request may hold {MAX_CASES} cases, found {max(lengths)}.")
    return found


def _inputs(content: object, model: OnnxModel) -> dict[str, np.ndarray]:
    if not isinstance(content, dict) or len(content.keys() & set(KEYS)) != 1:
        raise wrong(f"The body must be a JSON object with exactly one of {', '.join(KEYS)}.")
    if unknown := sorted(content.keys() - {*KEYS, "params", "signature_name"}):
        raise wrong(f"The body has an unknown key {unknown[0][:50]!r}.")
    key = next(key for key in KEYS if key in content)
    value = content[key]
    is_records = isinstance(value, list) and value and isinstance(value[0], dict)
    if key == "dataframe_split" and isinstance(value, dict) and isinstance(value.get("data"), list):
        rows = value["data"]
        width = len(rows[0]) if rows and isinstance(rows[0], list) else 0
        return _table(value.get("columns") or list(range(width)), rows, model)
    if is_records and key != "inputs":
        names = list(value[0])
        if any(not isinstance(row, dict) or row.keys() != value[0].keys() for row in value):
            raise wrong(f"All records must have the keys of the first: {', '.join(names)[:100]}.")
        return _table(names, [[row[name] for name in names] for row in value], model)
    if key.startswith("dataframe"):
        raise wrong(f"{key} must be {{columns, data}}, or a list of objects, one a case.")
    if isinstance(value, dict):
        return _named(value, model)
    if len(model.inputs) > 1:
        names = ", ".join(each.name for each in model.inputs)
        raise wrong(f"The model's inputs have names: {names}.")
    return {model.inputs[0].name: _array(value, model.inputs[0], key)}


def _table(names: list, rows: list, model: OnnxModel, is_csv: bool = False) -> dict:
    """Return the columns as the inputs of those names, or all together as the one input.

    Columns that the signature names come in any order.
    """
    names, wanted = list(map(str, names)), list(model.columns)
    if any(not isinstance(row, list) or len(row) != len(names) for row in rows):
        raise wrong("Each row must be a list with a value for each of the columns.")
    if is_csv:
        texts = {each.name for each in model.inputs if each.type not in TYPES}
        texts = set(names) if texts and len(model.inputs) == 1 else texts
        rows = [[cell if name in texts else _number(cell) for name, cell in zip(names, row)]
                for row in rows]
    if len(model.inputs) > 1 or names == [model.inputs[0].name]:
        return _named({name: [row[place] for row in rows] for place, name in enumerate(names)},
                      model)
    if wanted and names not in (wanted, [str(number) for number in range(len(wanted))]):
        if sorted(names) != sorted(wanted):
            raise wrong(f"The model's columns are {', '.join(wanted)[:200]}; found "
                        f"{', '.join(names)[:200]}.")
        order = [names.index(name) for name in wanted]
        rows = [[row[place] for place in order] for row in rows]
    return {model.inputs[0].name: _array(rows, model.inputs[0], "Each row")}


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _named(value: dict, model: OnnxModel) -> dict[str, np.ndarray]:
    wanted = [each.name for each in model.inputs]
    if set(value) != set(wanted):
        raise wrong(f"The model's inputs are {', '.join(wanted)}; found "
                    f"{', '.join(map(str, value))[:100]}.")
    return {each.name: _array(value[each.name], each, each.name) for each in model.inputs}


def _array(value: object, wanted, what: str) -> np.ndarray:
    """Return `value` in the shape and type of an input of the model; no number is changed."""
    if not isinstance(value, list):
        raise wrong(f"{what} must be a list of cases.")
    shape = [size if isinstance(size, int) else None for size in wanted.shape[1:]]
    dtype, kinds = TYPES.get(wanted.type), "iuf" if wanted.type in TYPES else "U"
    shown = " x ".join("any" if size is None else str(size) for size in shape) or "one value"
    found = np.asarray(value or np.zeros(0, dtype or "U1"))  # ValueError: of unequal lengths
    if found.dtype.kind not in kinds or not dtype and not all(
            isinstance(text, str) for text in np.asarray(value, object).ravel()):
        raise wrong(f"{what} must be {'numbers' if dtype else 'text'} of the shape {shown}.")
    if found.ndim != len(shape) + 1 or any(
            size not in (None, real) for size, real in zip(shape, found.shape[1:])):
        # A row of all numbers of a case becomes its shape.
        if None in shape or found.size != len(found) * math.prod(shape):
            given = " x ".join(map(str, found.shape[1:])) or "one value"
            raise wrong(f"{what} must be of the shape {shown} a case, found {given}.")
        found = found.reshape(len(found), *shape)
    if not dtype:
        return found.astype(object)
    with np.errstate(all="ignore"):
        typed = found.astype(dtype)
    if not np.isfinite(typed).all() or typed.dtype.kind != "f" and (typed != found).any():
        raise wrong(f"{what} must be finite numbers that fit {typed.dtype}.")
    return typed
