"""Parameter values, read from params.yaml exactly as DVC reads them (YAML 1.2)."""

from types import SimpleNamespace

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import from_yaml, root


def read() -> dict:
    """Return params.yaml as a mapping. Raise UserError where it is none."""
    from ruamel.yaml import YAMLError  # a tenth of a second, so only when it is needed

    path = root() / "params.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        values = from_yaml(text)
    except FileNotFoundError:
        raise UserError("params.yaml is missing: git checkout params.yaml brings it back."
                        ) from None
    except RecursionError:
        raise UserError("params.yaml is not valid YAML: it is nested too deep.") from None
    except (YAMLError, ValueError) as error:  # ValueError: no UTF-8, or thousands of digits
        raise UserError(f"params.yaml is not valid YAML: {_reason(error)}.") from None
    if not isinstance(values, dict):
        raise UserError(
            f"params.yaml must hold sections such as data: and models:, found {values!r}.")
    return values


def _reason(error: Exception) -> str:
    """Return a YAML error on one line, with its line and column where it has them."""
    mark = getattr(error, "problem_mark", None)
    reason = str(error)
    if mark:
        reason = f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(reason.partition(";")[0].split())


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
