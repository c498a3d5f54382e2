"""MLflow's scoring protocol: the body of POST /invocations as arrays, every value checked."""

import numpy as np
import orjson

from nbproof.notebook.errors import UserError
from nbproof.serve.model import OnnxModel

MAX_CASES = 10_000  # in one request
FORMS = ("The body must be a JSON object with one of inputs, dataframe_split: {columns, data}, "
         "dataframe_records: a list of objects with the same keys.")
TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64,
         "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_}


def parse(body: bytes, model: OnnxModel) -> dict[str, np.ndarray]:
    """Return an array for each input of `model`; UserError says what is wrong."""
    names = [wanted.name for wanted in model.inputs]
    try:
        values = _values(orjson.loads(body), model)  # which reads no NaN
        if {*values} != {*names}:
            raise UserError(f"The model's inputs are {', '.join(names)}; found "
                            f"{', '.join(values)[:100]}.")
        arrays = {wanted.name: _array(values[wanted.name], wanted) for wanted in model.inputs}
    except (ValueError, TypeError, KeyError) as error:  # of JSON, NumPy, or a table's rows
        raise UserError(f"The body cannot be read: {str(error)[:150]}.") from None
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1 or not 0 < max(lengths) <= MAX_CASES:
        raise UserError(f"All inputs must have the same number of cases, from 1 to {MAX_CASES}.")
    return arrays


def _values(content: object, model: OnnxModel) -> dict:
    """Return the values of a JSON body by input; a table is the one input of a model."""
    match content:
        case {"inputs": dict() as values}:
            return values
        case {"inputs": values}:
            return {model.inputs[0].name: values}
        case {"dataframe_split": {"columns": list() as names, "data": list() as rows}}:
            columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        case {"dataframe_records": [dict() as first, *_] as records}:
            columns = {name: [row[name] for row in records] for name in first}
        case _:
            raise UserError(FORMS)
    wanted = model.columns or [*columns]  # by name, in any order
    if {*columns} != {*wanted}:
        raise UserError(f"The model's columns are {', '.join(wanted)[:200]}; found "
                        f"{', '.join(map(str, columns))[:200]}.")
    return {model.inputs[0].name: [*zip(*(columns[name] for name in wanted))]}


@np.errstate(all="ignore")  # what does not fit is told below
def _array(value: object, wanted) -> np.ndarray:
    """Return `value` in the type of the input `wanted` of the model; no number is changed."""
    array, dtype = np.asarray(value), TYPES.get(wanted.type)  # ValueError: of unequal lengths
    if not array.ndim or array.dtype.kind not in ("iuf" if dtype else "U"):
        raise UserError(f"{wanted.name} must be a list of {'numbers' if dtype else 'texts'}.")
    if not dtype:
        return array.astype(object)
    typed = array.astype(dtype)
    is_float = typed.dtype.kind == "f"
    if not np.isfinite(typed).all() or not is_float and (typed != array).any():
        raise UserError(f"{wanted.name} must be finite numbers that fit {typed.dtype}.")
    return typed
