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
    if kind == "text/csv":
        found = _table(*_csv(body), model)
    elif kind in ("application/json", ""):
        found = _inputs(_json(body), model)
    else:
        raise HTTPException(415, "The content type must be application/json or text/csv, found "
                                 f"{kind[:80]}.")
    lengths = {len(array) for array in found.values()}
    if lengths == {0}:
        raise wrong("The body holds no case.")
    if len(lengths) > 1:
        raise wrong("All inputs must have the same number of cases, found "
                    f"{', '.join(map(str, sorted(lengths)))}.")
    if max(lengths) > MAX_CASES:
        raise HTTPException(413, f"One request may hold {MAX_CASES} cases, found {max(lengths)}.")
    return found


def _json(body: bytes) -> dict:
    try:
        content = orjson.loads(body)  # it takes no NaN and no number that is too large
    except ValueError as error:
        raise wrong(f"The body cannot be read: {str(error)[:150]}.") from None
    if not isinstance(content, dict):
        raise wrong(f"The body must be a JSON object with one of {', '.join(KEYS)}.")
    return content


def _csv(body: bytes) -> tuple[list, list]:
    """Return the columns and the rows; a cell that is a number becomes one."""
    try:
        columns, *rows = csv.reader(io.StringIO(body.decode("utf-8-sig")))
    except (ValueError, csv.Error) as error:
        raise wrong(f"The body cannot be read: {str(error)[:150]}.") from None
    return columns, [[_number(cell) for cell in row] for row in rows]


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _inputs(content: dict, model: OnnxModel) -> dict[str, np.ndarray]:
    found = [key for key in KEYS if key in content]
    if len(found) != 1:
        raise wrong(f"The body must hold exactly one of {', '.join(KEYS)}; it holds "
                    f"{', '.join(found) or 'none'}.")
    if unknown := sorted(set(content) - {*KEYS, "params", "signature_name"}):
        raise wrong(f"The body has an unknown key {unknown[0][:50]!r}.")
    key, value = found[0], content[found[0]]
    is_records = isinstance(value, list) and all(isinstance(row, dict) for row in value)
    if key == "dataframe_split":
        rows = value.get("data") if isinstance(value, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            raise wrong("dataframe_split must be an object with a list of rows `data`, and "
                        "`columns` where the model has names.")
        return _table(value.get("columns") or list(range(len(rows[0]) if rows else 0)), rows, model)
    if key == "dataframe_records" and not is_records:
        raise wrong("dataframe_records must be a list of objects, one a case.")
    if key == "dataframe_records" or key == "instances" and is_records and value:
        names = list(value[0]) if value else []
        for number, row in enumerate(value, start=1):
            if row.keys() != set(names):
                raise wrong(f"Record {number} must have the keys of record 1: "
                            f"{', '.join(names)[:100]}.")
        return _table(names, [[row[name] for name in names] for row in value], model)
    if isinstance(value, dict):
        return _named(value, model)
    if len(model.inputs) > 1:
        raise wrong("The model's inputs have names: "
                    f"{', '.join(each.name for each in model.inputs)}.")
    return {model.inputs[0].name: _array(value, model.inputs[0], key)}


def _table(names: list, rows: list, model: OnnxModel) -> dict[str, np.ndarray]:
    """Return the columns as the inputs of those names, or all together as the one input.

    Columns that the signature names come in any order.
    """
    names, wanted = list(map(str, names)), list(model.columns)
    if any(len(row) != len(names) for row in rows):
        raise wrong("Each row must have a value for each of the columns.")
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
    shown = " x ".join("any" if size is None else str(size) for size in shape) or "one value"
    is_text = wanted.type not in TYPES
    kinds = "U" if is_text else "iuf"
    try:
        found = np.asarray(value) if value else np.zeros(0, "U1" if is_text else np.float32)
    except (ValueError, OverflowError):  # lists of unequal lengths
        raise wrong(f"{what} must be of the shape {shown}, all cases the same.") from None
    if found.dtype.kind not in kinds:
        raise wrong(f"{what} must be {'text' if is_text else 'numbers'} of the shape {shown}, found "
                    f"{ {'U': 'text', 'b': 'true or false'}.get(found.dtype.kind, 'something else')}.")
    fits = len(found.shape) == len(shape) + 1 and all(
        size in (None, real) for size, real in zip(shape, found.shape[1:]))
    if not fits:  # a row of all numbers of a case becomes its shape
        if None in shape or found.size != len(found) * math.prod(shape):
            given = " x ".join(map(str, found.shape[1:])) or "one value"
            raise wrong(f"{what} must be of the shape {shown} a case, found {given}.")
        found = found.reshape(len(found), *shape)
    if is_text:
        return found.astype(object)
    with np.errstate(all="ignore"):
        typed = found.astype(TYPES[wanted.type])
    if typed.dtype.kind == "f" and not np.isfinite(typed).all():
        raise wrong(f"{what} must be finite numbers that fit {typed.dtype}.")
    if typed.dtype.kind != "f" and (typed != found).any():
        raise wrong(f"{what} must be whole numbers of the type {typed.dtype}.")
    return typed
