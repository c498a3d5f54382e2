"""Parameter values, read from params.yaml exactly as DVC reads them (YAML 1.2: `1e-3` is a number)."""

import ast
from types import SimpleNamespace

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import from_yaml, root
from nbproof.notebook.progress import in_jupyter


def read() -> dict:
    """params.yaml as a mapping; UserError if it is not one."""
    from ruamel.yaml import YAMLError  # a tenth of a second, so only when it is needed

    path = root() / "params.yaml"
    try:
        values = from_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("params.yaml is not there: take it from git again (git checkout params.yaml).") from None
    except RecursionError:
        raise UserError("params.yaml is not valid YAML: it is nested too deep.") from None
    except (YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a number of thousands of digits
        place = getattr(error, "problem_mark", None)
        reason = f"{error.problem} in line {place.line + 1}, column {place.column + 1}" if place else str(error)
        reason = reason.partition(";")[0]
        raise UserError(f"params.yaml is not valid YAML: {' '.join(reason.split())}.") from None
    if not isinstance(values, dict):
        raise UserError(f"params.yaml must hold sections such as data: and models:, found {values!r}.")
    return values


def section(name: str) -> SimpleNamespace:
    """The values of one section, `"data"` or `"models.cnn"`, as attributes; KeyError names what is missing."""
    values = read()
    for key in name.split("."):
        if not isinstance(values, dict) or key not in values:
            raise KeyError(f"params.yaml has no section {name}")
        values = values[key]
    if (shell := in_jupyter()) and _say_values not in shell.events.callbacks["post_run_cell"]:
        shell.events.register("post_run_cell", _say_values)
    return SimpleNamespace(**(values or {}))


def _say_values(result) -> None:
    """Below a parameters cell, the values that it has set: its lines say only where they come from."""
    try:
        lines = ast.parse(result.info.raw_cell).body if result.success else []
    except SyntaxError:  # a cell with a line of IPython's own
        return
    if lines and all(isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) for line in lines):
        values = in_jupyter().user_ns
        print(", ".join(f"{line.target.id} = {values[line.target.id]!r}" for line in lines))


def chosen(parameters: SimpleNamespace, namespace: dict) -> dict:
    """What a notebook really runs with: the section's names with the values they have in `namespace` now."""
    return {name: namespace[name] for name in vars(parameters)}
