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
            values = _table(columns, rows, model)
        else:
            values = _values(orjson.loads(body), model)  # which reads no NaN
        if not isinstance(values, dict):
            values = {model.inputs[0].name: values}
        wanted = [each.name for each in model.inputs]
        if set(values) != set(wanted):
            raise wrong(f"The model's inputs are {', '.join(wanted)}; found "
                        f"{', '.join(map(str, values))[:100]}.")
        arrays = {each.name: _array(values[each.name], each) for each in model.inputs}
    except (ValueError, csv.Error) as error:
        raise wrong(f"The body cannot be read: {str(error)[:150]}.") from None
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise wrong("All inputs must have the same number of cases, and at least one; found "
                    f"{', '.join(map(str, sorted(lengths)))}.")
    if max(lengths) > MAX_CASES:
        raise HTTPException(413, f"One request may hold {MAX_CASES} cases, found {max(lengths)}.")
    return arrays


def _values(content: object, model: OnnxModel) -> object:
    """Return the values of a JSON body: by input, or of the one input."""
    if not isinstance(content, dict) or len(content.keys() & set(KEYS)) != 1:
        raise wrong(f"The body must be a JSON object with exactly one of {', '.join(KEYS)}.")
    if unknown := sorted(content.keys() - {*KEYS, "params", "signature_name"}):
        raise wrong(f"The body has an unknown key {unknown[0][:50]!r}.")
    [key] = content.keys() & set(KEYS)
    value = content[key]
    if key == "dataframe_split" and isinstance(value, dict) and isinstance(value.get("data"), list):
        rows = value["data"]
        width = len(rows[0]) if rows and isinstance(rows[0], list) else 0
        return _table(value.get("columns") or list(range(width)), rows, model)
    is_records = isinstance(value, list) and value and isinstance(value[0], dict)
    if is_records and key != "inputs":
        names = list(value[0])
        if any(not isinstance(row, dict) or row.keys() != value[0].keys() for row in value):
            raise wrong(f"All records must have the keys of the first: {', '.join(names)[:100]}.")
        return _table(names, [[row[name] for name in names] for row in value], model)
    if key.startswith("dataframe"):
        raise wrong(f"{key} must be {{columns, data}}, or a list of objects, one a case.")
    return value


def _table(names: list, rows: list, model: OnnxModel) -> dict | list:
    """Return a table's columns by name where they are inputs, else its rows as the one input.

    Columns that the signature names come in any order.
    """
    names, wanted = list(map(str, names)), model.columns
    if any(not isinstance(row, list) or len(row) != len(names) for row in rows):
        raise wrong("Each row must be a list with a value for each of the columns.")
    if len(model.inputs) > 1 or names == [model.inputs[0].name]:
        return {name: [row[place] for row in rows] for place, name in enumerate(names)}
    if not wanted or names in (wanted, [str(number) for number in range(len(wanted))]):
        return rows
    if sorted(names) != sorted(wanted):
        raise wrong(f"The model's columns are {', '.join(wanted)[:200]}; found "
                    f"{', '.join(names)[:200]}.")
    order = [names.index(name) for name in wanted]
    return [[row[place] for place in order] for row in rows]


def _array(value: object, wanted) -> np.ndarray:
    """Return `value` in the shape and type of the input `wanted` of the model.

    No number is changed. A text that is a number is one, as all are in CSV.
    """
    if not isinstance(value, list):
        raise wrong(f"{wanted.name} must be a list of cases.")
    sizes = [size if isinstance(size, int) else -1 for size in wanted.shape[1:]]
    shown = " x ".join("any" if size < 0 else str(size) for size in sizes) or "one value"
    dtype = TYPES.get(wanted.type)
    array = np.asarray(value or np.zeros(0, dtype or "U1"))  # ValueError: of unequal lengths
    is_text = all(isinstance(text, str) for text in np.asarray(value, object).ravel()) if (
        array.dtype.kind == "U") else False
    if not (is_text or dtype and array.dtype.kind in "iuf"):
        raise wrong(f"{wanted.name} must be {'numbers' if dtype else 'text'} of the shape {shown}.")
    if array.ndim != len(sizes) + 1 or any(
            size not in (-1, real) for size, real in zip(sizes, array.shape[1:])):
        # A row of all numbers of a case becomes its shape.
        if -1 in sizes or array.size != len(array) * math.prod(sizes):
            given = " x ".join(map(str, array.shape[1:])) or "one value"
            raise wrong(f"{wanted.name} must be of the shape {shown} a case, found {given}.")
        array = array.reshape(len(array), *sizes)
    if not dtype:
        return array.astype(object)
    numbers = array.astype(float) if is_text else array
    with np.errstate(all="ignore"):
        typed = numbers.astype(dtype)
    if not np.isfinite(typed).all() or typed.dtype.kind != "f" and (typed != numbers).any():
        raise wrong(f"{wanted.name} must be finite numbers that fit {typed.dtype}.")
    return typed
