"""MLflow's scoring protocol: the body of POST /invocations as arrays, every value checked."""

import csv
import io

import numpy as np
import orjson
from starlette.exceptions import HTTPException

from nbproof.notebook.errors import UserError
from nbproof.serve.model import TYPES, OnnxModel

MAX_CASES = 10_000  # in one request
FORMS = ("The body must be a JSON object with one of dataframe_split: {columns, data}, "
         "dataframe_records: a list of objects with the same keys, instances, inputs.")


def parse(body: bytes, kind: str, model: OnnxModel) -> dict[str, np.ndarray]:
    """Return an array for each input of `model`; UserError says what is wrong."""
    kind = kind.partition(";")[0].strip().lower()
    if kind not in ("text/csv", "application/json", ""):
        raise HTTPException(415, "The content type must be application/json or text/csv.")
    try:
        if kind == "text/csv":
            names, *rows = csv.reader(io.StringIO(body.decode("utf-8-sig")))
            values = _table(names, rows, model)
        else:
            values = _values(orjson.loads(body), model)  # which reads no NaN
        if not isinstance(values, dict):
            values = {model.inputs[0].name: values}
        wanted = {each.name: each for each in model.inputs}
        if values.keys() != wanted.keys():
            raise UserError(f"The model's inputs are {', '.join(wanted)}; found "
                            f"{', '.join(map(str, values))[:100]}.")
        arrays = {name: _array(values[name], each) for name, each in wanted.items()}
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(f"The body cannot be read: {str(error)[:150]}.") from None
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1 or not 0 < max(lengths) <= MAX_CASES:
        raise UserError(f"All inputs must have the same number of cases, from 1 to {MAX_CASES}; "
                        f"found {', '.join(map(str, sorted(lengths)))}.")
    return arrays


def _values(content: object, model: OnnxModel) -> object:
    """Return the values of a JSON body: by input, or of the one input."""
    match content:
        case {"dataframe_split": {"data": [list() as first, *_] as rows, **rest}}:
            return _table(rest.get("columns") or range(len(first)), rows, model)
        case {"dataframe_records": [dict() as first, *_] as records} | {
                "instances": [dict() as first, *_] as records}:
            if any(not isinstance(row, dict) or row.keys() != first.keys() for row in records):
                raise UserError(FORMS)
            return _table(first, [[row[name] for name in first] for row in records], model)
        case {"inputs": values} | {"instances": values}:
            return values
    raise UserError(FORMS)


def _table(names, rows: list, model: OnnxModel) -> dict | list:
    """Return a table's columns by name where they are inputs, else its rows as the one input.

    Columns that the signature names come in any order.
    """
    names, wanted = list(map(str, names)), model.columns
    if any(not isinstance(row, list) or len(row) != len(names) for row in rows):
        raise UserError("Each row must be a list with a value for each of the columns.")
    if len(model.inputs) > 1 or names == [model.inputs[0].name]:
        return {name: [row[place] for row in rows] for place, name in enumerate(names)}
    if not wanted or names == [str(number) for number in range(len(wanted))]:
        return rows
    if sorted(names) != sorted(wanted):
        raise UserError(f"The model's columns are {', '.join(wanted)[:200]}; found "
                        f"{', '.join(names)[:200]}.")
    order = [names.index(name) for name in wanted]
    return [[row[place] for place in order] for row in rows]


@np.errstate(all="ignore")  # what does not fit is told below
def _array(value: object, wanted) -> np.ndarray:
    """Return `value` in the type of the input `wanted` of the model; a flat case gets its shape.

    No number is changed. A text that is a number is one, as all are in CSV. onnxruntime checks
    shapes.
    """
    dtype, sizes = TYPES.get(wanted.type), wanted.shape[1:]
    is_float = dtype in (np.float32, np.float64)  # other types are compared with what was sent
    array = np.asarray(value, dtype if is_float else None)  # ValueError: of unequal lengths
    if not array.ndim or array.dtype.kind not in ("iufU" if dtype else "U"):
        raise UserError(f"{wanted.name} must be a list of {'numbers' if dtype else 'texts'}.")
    if array.ndim == 2 and len(sizes) != 1:
        shape = [size if isinstance(size, int) else -1 for size in sizes]
        array = array.reshape(len(array), *shape)
    if not dtype:
        return array.astype(object)
    numbers = array.astype(float) if array.dtype.kind == "U" else array
    typed = numbers.astype(dtype, copy=False)
    if not np.isfinite(typed).all() or typed.dtype.kind != "f" and (typed != numbers).any():
        raise UserError(f"{wanted.name} must be finite numbers that fit {typed.dtype}.")
    return typed
