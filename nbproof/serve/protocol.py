"""MLflow's scoring protocol: the body of POST /invocations as the inputs of a model, every value checked."""

import csv
import io
import math

import numpy as np
import orjson

from nbproof.serve.errors import Trouble, wrong
from nbproof.serve.model import TYPES, Portable

KEYS = ("dataframe_split", "dataframe_records", "instances", "inputs")
MOST = 10_000  # cases in one request


class Cell(str):
    """A cell of a CSV file, of which only the model says whether it is text or a number."""


def parsed(body: bytes, kind: str) -> dict:
    """The content of a body of JSON, or of CSV, which becomes `dataframe_split`."""
    kind = kind.partition(";")[0].strip().lower()
    try:
        if kind == "text/csv":
            rows = list(csv.reader(io.StringIO(body.decode("utf-8-sig"))))
            return {"dataframe_split": {"columns": rows[0], "data": [list(map(Cell, row)) for row in rows[1:]]}}
        if kind not in ("application/json", ""):
            raise Trouble(415, "BAD_REQUEST", "The content type must be application/json or text/csv, found "
                          f"{kind[:80]}.")
        content = orjson.loads(body)  # which takes no NaN and no number that is too large
    except (ValueError, IndexError, RecursionError, csv.Error) as error:
        raise wrong(f"The body cannot be read: {str(error)[:150] or type(error).__name__}.") from None
    if not isinstance(content, dict):
        raise wrong(f"The body must be a JSON object with one of {', '.join(KEYS)}.")
    return content


def inputs(content: dict, model: Portable) -> dict[str, np.ndarray]:
    """The inputs of `model` that `content` holds; Trouble says what is wrong with it."""
    given = [key for key in KEYS if key in content]
    if len(given) != 1:
        raise wrong(f"The body must hold exactly one of {', '.join(KEYS)}; it holds {', '.join(given) or 'none'}.")
    if unknown := sorted(set(content) - {*KEYS, "params", "signature_name"}):
        raise wrong(f"The body has an unknown key {unknown[0][:50]!r}.")
    key, value = given[0], content[given[0]]
    if key == "dataframe_split":
        found = _columns(*_split(value), model)
    elif key == "dataframe_records":
        found = _columns(*_records(value), model)
    elif isinstance(value, dict):
        found = _named(value, model)
    elif key == "instances" and isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        names, rows = _records(value)
        found = _named({name: [row[place] for row in rows] for place, name in enumerate(names)}, model)
    else:
        found = _one(value, model, f"{key} ")
    lengths = {len(each) for each in found.values()}
    if lengths == {0}:
        raise wrong("The body holds no case.")
    if len(lengths) > 1:
        raise wrong(f"All inputs must have the same number of cases, found {', '.join(map(str, sorted(lengths)))}.")
    if max(lengths) > MOST:
        raise Trouble(413, "BAD_REQUEST", f"One request may hold {MOST} cases, found {max(lengths)}.")
    return found


def _split(value: object) -> tuple[list, list]:
    if not isinstance(value, dict) or not isinstance(rows := value.get("data"), list):
        raise wrong("dataframe_split must be an object with a list `data`, and `columns` where the model has names.")
    names = value.get("columns", list(range(len(rows[0]) if rows and isinstance(rows[0], list) else 0)))
    if not isinstance(names, list) or any(not isinstance(row, list) or len(row) != len(names) for row in rows):
        raise wrong("Each row of dataframe_split's data must be a list with a value for each of its columns.")
    return names, rows


def _records(value: object) -> tuple[list, list]:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise wrong("Records must be a list of objects, one a case.")
    names = list(value[0]) if value else []
    for number, row in enumerate(value, start=1):
        if row.keys() != set(names):
            raise wrong(f"Record {number} must have the keys of record 1: {', '.join(map(str, names))[:100]}.")
    return names, [[row[name] for name in names] for row in value]


def _columns(names: list, rows: list, model: Portable) -> dict[str, np.ndarray]:
    """A table: a column for each input of the model, or all columns together as its one input.

    Columns of one input that its signature names come in any order.
    """
    if len(model.inputs) > 1 or names == [model.inputs[0].name]:
        return _named({name: [row[place] for row in rows] for place, name in enumerate(names)}, model)
    wanted = list(model.facts.columns)
    if wanted and names != list(range(len(wanted))) and (names := list(map(str, names))) != wanted:
        if sorted(names) != sorted(wanted):
            raise wrong(f"The model's columns are {', '.join(wanted)[:200]}; found {', '.join(names)[:200]}.")
        places = [names.index(name) for name in wanted]
        rows = [[row[place] for place in places] for row in rows]
    return _one(rows, model, "each row ")


def _named(value: dict, model: Portable) -> dict[str, np.ndarray]:
    wanted = [each.name for each in model.inputs]
    if set(value) != set(wanted):
        raise wrong(f"The model's inputs are {', '.join(wanted)}; found {', '.join(map(str, value))[:100]}.")
    return {each.name: _array(value[each.name], each, f"{each.name} ") for each in model.inputs}


def _one(value: object, model: Portable, what: str) -> dict[str, np.ndarray]:
    if len(model.inputs) > 1:
        raise wrong(f"The model's inputs have names: {', '.join(each.name for each in model.inputs)}.")
    return {model.inputs[0].name: _array(value, model.inputs[0], what)}


def _array(value: object, wanted, what: str) -> np.ndarray:
    """`value` in the shape and the type of the model's input `wanted`; nothing is rounded or made up."""
    if not isinstance(value, list):
        raise wrong(f"{what}must be a list of cases.")
    shape = [size if isinstance(size, int) else None for size in wanted.shape][1:]
    if wanted.type in TYPES:
        value = _numbers(value)
    try:
        found = np.asarray(value)
    except (ValueError, OverflowError):  # lists of unequal lengths
        raise wrong(f"{what}must be numbers of the shape {_shown(shape)}, all cases alike.") from None
    if wanted.type not in TYPES:
        texts = np.asarray(value, dtype=object)
        if found.dtype.kind != "U" or any(not isinstance(each, str) for each in texts.ravel()):
            raise wrong(f"{what}must be text.")
        return _shaped(texts, shape if texts.ndim == len(shape) + 1 else [size or 1 for size in shape], what)
    if not found.size:
        return np.zeros((0, *(size or 1 for size in shape)), TYPES[wanted.type])
    if found.dtype.kind not in "iuf":
        raise wrong(f"{what}must be numbers of the shape {_shown(shape)}, found {_kind(found)}.")
    found = _shaped(found, shape, what)
    with np.errstate(all="ignore"):
        typed = found.astype(TYPES[wanted.type])
    if typed.dtype.kind != "f" and (typed != found).any():
        raise wrong(f"{what}must be whole numbers of the type {typed.dtype}.")
    if typed.dtype.kind == "f" and not np.isfinite(typed).all():
        raise wrong(f"{what}must be finite numbers that fit {typed.dtype}.")
    return typed


def _shaped(found: np.ndarray, shape: list[int | None], what: str) -> np.ndarray:
    """The cases in the model's shape; a row of all numbers of a case becomes that shape."""
    fits = found.ndim == len(shape) + 1 and all(size in (None, real) for size, real in zip(shape, found.shape[1:]))
    if fits:
        return found
    if None not in shape and found.size == len(found) * math.prod(shape):
        return found.reshape(len(found), *shape)
    raise wrong(f"{what}must be of the shape {_shown(shape)} a case, found {_shown(list(found.shape[1:]))}.")


def _shown(shape: list[int | None]) -> str:
    return " x ".join("any" if size is None else str(size) for size in shape) or "one number"


def _kind(found: np.ndarray) -> str:
    return {"U": "text", "b": "true or false", "O": "something else"}.get(found.dtype.kind, "something else")


def _numbers(value: list) -> list:
    """`value` with numbers instead of cells of CSV that are numbers; of JSON it is left as it is."""
    first = value[0] if value else None
    if isinstance(first, list) and first and isinstance(first[0], Cell):
        return [list(map(_number, row)) for row in value]
    return list(map(_number, value)) if isinstance(first, Cell) else value


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
