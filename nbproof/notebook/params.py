"""Parameter values, read from params.yaml exactly as DVC reads them (YAML 1.2)."""

import functools
import re
from operator import getitem
from pathlib import Path
from types import SimpleNamespace

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import from_yaml, root


def read(name: str = "params.yaml", folder: Path | None = None) -> dict:
    """Return a YAML file of the project (at `folder`) as a mapping; UserError where it is none."""
    from ruamel.yaml import YAMLError  # a tenth of a second, so only when it is needed

    try:
        values = from_yaml(((folder or root()) / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{name} is missing: git checkout {name} brings it back.") from None
    except RecursionError:
        raise UserError(f"{name} is not valid YAML: it is nested too deep.") from None
    except (YAMLError, ValueError) as error:  # ValueError: no UTF-8, or thousands of digits
        raise UserError(f"{name} is not valid YAML: {_reason(error)}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{name} must hold names with values, found {values!r}.")
    return values


def _reason(error: Exception) -> str:
    """Return a YAML error on one line, with its line and column where it has them."""
    mark = getattr(error, "problem_mark", None)
    if not mark:
        return " ".join(str(error).partition(";")[0].split())
    problem = error.problem
    if problem == "mapping values are not allowed here":
        problem = "a colon is missing above, or there is one too many,"
    if twice := re.match('found duplicate key ("[^"]*")', problem):  # the rest is wrong values
        problem = f"the key {twice[1]} is there twice, again"
    return " ".join(f"{problem} in line {mark.line + 1}, column {mark.column + 1}".split())


def value(key: str) -> object:
    """Return one value, such as `"data.source"`; KeyError or TypeError where there is none."""
    return functools.reduce(getitem, key.split("."), read())


def section(name: str) -> SimpleNamespace:
    """Return one section, `"data"` or `"models.cnn"`, as attributes; KeyError if it is missing."""
    values = read()
    for key in name.split("."):
        values = values.get(key, ()) if isinstance(values, dict) else ()
    if not isinstance(values, dict | None):
        raise KeyError(f"params.yaml has no section {name}")
    return SimpleNamespace(**(values or {}))


def chosen(parameters: SimpleNamespace, namespace: dict) -> dict:
    """Return the section's names with the values that they have in `namespace` now."""
    return {name: namespace[name] for name in vars(parameters)}
