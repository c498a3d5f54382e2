"""Parameters with one definition: values in params.yaml; name, type, range and meaning in the notebook's tagged cell.

A line of that cell reads `lr: float = P.lr  # (0, 1] peak learning rate`, with an interval, a set such as {auto, cpu},
or neither before the meaning. Everything is checked before a kernel starts, and no name or value reaches a shell.
"""

import ast
import io
import re
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import ROOT, Refused
from pipeline.stage import source

TYPES = {"int": int, "float": float, "bool": bool, "str": str}
NAME = re.compile(r"[a-z][a-z0-9_]*")
INTERVAL = re.compile(r"([\[(])\s*([^\s,]+)\s*,\s*([^\s,\])]+)\s*([\])])\s*(.*)")
CHOICES = re.compile(r"\{([^}]*)\}\s*(.*)")


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell; `allowed` is the interval or set as written, empty for anything of the type."""

    name: str
    type: str
    allowed: str
    meaning: str

    def accepts(self, value: object) -> bool:
        """Whether `value` has the type (an int may stand for a float, a bool for nothing else) and lies in the range."""
        right_type = type(value) is TYPES[self.type] or (self.type == "float" and type(value) is int)
        if not right_type or (self.type == "float" and not abs(value) <= sys.float_info.max):
            return False
        if not self.allowed:
            return True
        if self.allowed.startswith("{"):
            return str(value) in re.split(r"\s*,\s*", self.allowed[1:-1].strip())
        opens, low, high, closes, _ = INTERVAL.fullmatch(self.allowed).groups()
        above = value > float(low) or (opens == "[" and value == float(low))
        below = value < float(high) or (closes == "]" and value == float(high))
        return above and below


def read(path: Path) -> dict:
    """params.yaml as DVC reads it (YAML 1.2, so `1e-3` is a number); Refused if it is not a mapping or not YAML."""
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(f"{path.name} is not there: take it from git again (git checkout {path.name}).") from None
    except (YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        reason = f"{error.problem} in line {place.line + 1}, column {place.column + 1}" if place else str(error)
        raise Refused(f"{path.name} is not valid YAML: {' '.join(reason.split())}.") from None
    if not isinstance(values, dict):
        raise Refused(f"{path.name} must hold sections such as data: and models:, found {values!r}.")
    for name in values:
        _check_name(name, f"{path.name} has a section with the name")
    return values


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Refused(f"{what} {name!r}; a name is small letters, digits and _, a letter first.")


def definitions(notebook: Path) -> dict[str, Parameter]:
    """What the tagged cell of `notebook` declares, in order; Refused names the line that is not a declaration."""
    return declared_in(source.read(notebook)["cells"], _shown(notebook))


def declared_in(cells: list[dict], where: str) -> dict[str, Parameter]:
    """What the tagged one of a notebook's `cells` declares; `where` names the notebook in a refusal."""
    tagged = [cell for cell in cells if cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise Refused(f"{where} must have one cell tagged `parameters`, found {len(tagged)}.")
    return _declared(source.code(tagged[0]), where)


def _declared(code: str, where: str) -> dict[str, Parameter]:
    try:
        lines = ast.parse(code).body
    except SyntaxError as error:
        raise Refused(f"{where}: line {error.lineno} of the parameters cell is not Python: {error.msg}.") from None
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found: dict[str, Parameter] = {}
    for line in lines:
        written = ast.unparse(line)
        match line:
            case ast.AnnAssign(target=ast.Name(name), annotation=ast.Name(kind), value=ast.Attribute(ast.Name("P"), same)) if name == same:
                pass
            case ast.AnnAssign(target=ast.Name(name), annotation=ast.Name(kind)):
                raise Refused(
                    f"{where}: `{written}` in the parameters cell must read `{name}: {kind} = P.{name}`; where it is an exploration's "
                    "value, `make adopt RUN=last` takes it into params.yaml and puts the line right."
                )
            case _:
                raise Refused(f"{where}: `{written}` in the parameters cell must read `name: type = P.name  # [low, high] meaning`.")
        comment = comments.get(line.lineno, "")
        if kind not in TYPES or "=" in comment or name in found:
            reason = f"has a type other than {', '.join(TYPES)}" if kind not in TYPES else "has an = in its comment" if "=" in comment else "comes twice"
            raise Refused(f"{where}: `{written}` in the parameters cell {reason}.")
        found[name] = Parameter(name, kind, *_allowed(comment, kind, f"{where}: the range of `{written}`"))
    return found


def _allowed(comment: str, kind: str, where: str) -> tuple[str, str]:
    """The range and the meaning of a line's comment."""
    if choices := CHOICES.fullmatch(comment):
        return comment[: comment.index("}") + 1], choices[2]
    if comment[:1] not in ("[", "("):
        return "", comment
    interval = INTERVAL.fullmatch(comment)
    try:
        if kind not in ("int", "float") or not float(interval[2]) <= float(interval[3]):
            raise ValueError
    except (TypeError, ValueError):
        raise Refused(f"{where} must be two numbers such as [1, 100] or (0, 1], for an int or a float; found `{comment}`.") from None
    return comment[: interval.end(4)], interval[5]


def models(values: dict) -> list[str]:
    """The names under `models`, checked: [a-z][a-z0-9_]*, and none that a section has already."""
    named = values.get("models")
    if not isinstance(named, dict) or not named:
        raise Refused(f"params.yaml: models must hold at least one model with its parameters, found {named!r}.")
    for name in named:
        _check_name(name, "params.yaml: models has the name")
        if name in values:
            raise Refused(f"params.yaml: models.{name} has the name of the section {name}; give the model another one.")
    return list(named)


def checked(name: str, root: Path = ROOT) -> tuple[Path, dict]:
    """The notebook of stage `name` and its values from params.yaml, typed; Refused names file, key, what was expected, what was found."""
    everything = read(root / "params.yaml")
    of_models = models(everything)
    if name not in of_models and (name == "models" or name not in everything):
        raise Refused(f"params.yaml has no section {name!r}; there are {', '.join([*(key for key in everything if key != 'models'), *of_models])}.")
    key, values = (f"models.{name}", everything["models"][name]) if name in of_models else (name, everything[name])
    notebook = root / "notebooks" / f"{name}.ipynb"
    declared = definitions(notebook)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise Refused(f"params.yaml: {key} must hold {', '.join(declared) or 'nothing'}, found {values!r}.")
    for unknown in [each for each in values if each not in declared]:
        raise Refused(f"params.yaml: {key}.{unknown} is unknown; {_shown(notebook)} knows {', '.join(declared) or 'no parameter'}.")
    for parameter in declared.values():
        expected = f"{parameter.type}{' in ' + parameter.allowed if parameter.allowed else ''}"
        if parameter.name not in values:
            raise Refused(f"params.yaml: {key}.{parameter.name} is missing; {_shown(notebook)} expects {expected} ({parameter.meaning}).")
        if not parameter.accepts(value := values[parameter.name]):
            raise Refused(f"params.yaml: {key}.{parameter.name} must be {expected} ({parameter.meaning}), found {value!r}.")
    return notebook, {each.name: TYPES[each.type](values[each.name]) for each in declared.values()}


def _shown(notebook: Path) -> str:
    return f"{notebook.parent.name}/{notebook.name}"
