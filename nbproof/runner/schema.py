"""Parameters: values in params.yaml; name, type, range and meaning in the notebook's tagged cell.

An earlier cell names a section, `P = section("models.cnn")`; a line of the tagged cell declares one
of its parameters: `lr: float = P.lr  # (0, 1] peak learning rate`. Before the meaning stands an
interval, a set such as {auto, cpu}, or neither; of a list it holds for each element. A line such as
`model: str = "cnn"` has its own default, and another value in a stage with
`cmd: nbproof stage model=mlp`. All is checked before a kernel starts.

A notebook that names no section is papermill's: `C = 1.0  # [0, 10] strength` in its tagged cell is
a parameter of the value's type. params.yaml may have its value in the section of the notebook's
name (`section_of`); without it, the cell's own counts.
"""

import ast
import difflib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nbproof.notebook import params
from nbproof.notebook.errors import UserError, meant
from nbproof.notebook.files import from_yaml, root
from nbproof.notebook.params import section
from nbproof.runner import source

TYPES = {"int": int, "float": float, "bool": bool, "str": str}
KIND = re.compile(r"(list\[)?(int|float|bool|str)(?(1)\])( \| None)?")
READS = re.compile(r"""^(\w+)\s*=\s*section\(\s*(["'])(.*?)\2\s*\)""", re.MULTILINE)
NUMBER = r"\s*(-?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf))\s*"
INTERVAL = re.compile(rf"([\[(]){NUMBER},{NUMBER}([\])])")
COMMENT = re.compile(rf"""
    (;?\s*\#\s* ((?P<allowed>\{{[^}}]*\}}|{INTERVAL.pattern})(?=\s|$))? \s* (?P<meaning>.*))? .*
    """, re.VERBOSE)
MAGIC = re.compile(r"(?m)^\s*[%!].*$")
FORM = ("must read `name: type = P.name  # [low, high] meaning`, and an earlier cell "
        f"`P = section(\"models.cnn\")`: a type is {', '.join(TYPES)}, list[...] of one, or one "
        "with `| None`; the range is of two numbers, a set such as {a, b}, or missing. `nbproof "
        "adopt last` takes the value of an exploration into params.yaml.")


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    type: str
    allowed: str  # the interval or set as written; empty where the type alone counts
    meaning: str
    section: str  # of params.yaml, which holds the value; empty where the cell has a default
    default: object = ...

    @property
    def key(self) -> str:  # such as models.cnn.lr
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def expected(self) -> str:
        each = "each " if self.type.startswith("list") else ""
        return f"{self.type}, {each}in {self.allowed}" if self.allowed else self.type

    def accepts(self, value: object) -> bool:
        """Return whether `value` is in the range and of the type: an int may be for a float."""
        is_list, kind, optional = KIND.fullmatch(self.type).groups()
        if value is None or isinstance(value, list) != bool(is_list):
            return value is None and bool(optional)
        return all(self._allows(kind, item) for item in (value if is_list else [value]))

    def _allows(self, kind: str, value: object) -> bool:
        if type(value) is not TYPES[kind] and (kind, type(value)) != ("float", int):
            return False
        if kind == "float" and not abs(value) <= sys.float_info.max:
            return False
        interval = INTERVAL.fullmatch(self.allowed)
        if not interval or kind == "str":
            names = map(str.strip, self.allowed[1:-1].split(","))
            return not self.allowed or str(value) in names
        opens, low, high, closes = interval.groups()
        is_end = (opens == "[" and value == float(low)) or (closes == "]" and value == float(high))
        return float(low) < value < float(high) or is_end

    def typed(self, value: object) -> object:
        """Return an accepted value as the notebook's type: for a float, an int becomes one."""
        if isinstance(value, list):
            return [self.typed(item) for item in value]
        return float(value) if "float" in self.type and value is not None else value


def declared(notebook: Path) -> dict[str, Parameter]:
    """Return what the tagged cell of `notebook` declares, by name, in order."""
    return declared_in(source.read(notebook)["cells"], shown(notebook))


def declared_in(cells: list[dict], where: str) -> dict[str, Parameter]:
    """Return what the tagged one of `cells` declares; messages call their notebook `where`."""
    tagged = [cell for cell in cells if is_tagged(cell)]
    if len(tagged) > 1:
        raise UserError(f"{where} must have one cell tagged `parameters`, found {len(tagged)}.")
    sections = sections_of(source.code(cell) for cell in cells if cell["cell_type"] == "code")
    code, found = MAGIC.sub("", "\n".join(map(source.code, tagged))), {}
    try:
        statements = ast.parse(code).body
    except SyntaxError as error:
        raise UserError(f"{where}: the parameters cell is not Python: {error.msg}, in line "
                        f"{error.lineno}.") from None
    lines = code.splitlines()
    for statement in statements:
        comment = lines[statement.end_lineno - 1].encode()[statement.end_col_offset :].decode()
        if parameter := _parameter(statement, comment.strip(), sections, where):
            found[parameter.name] = parameter
            continue
        line = f"{where}: `{lines[statement.lineno - 1].strip()[:80]}` in the parameters cell"
        if sections:
            raise UserError(f"{line} {FORM}")
        # papermill sets the values after this cell, so what it computes has the cell's own.
        names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        if used := sorted(names & found.keys()):
            raise UserError(f"{line} uses {used[0]} before its value from params.yaml is set: move "
                            "this line to the next cell.")
    return found


def _parameter(statement: ast.stmt, comment: str, sections: dict[str, str],
               where: str) -> Parameter | None:
    """Return what a statement of the tagged cell declares; None where it is no parameter."""
    match statement:
        case ast.AnnAssign(ast.Name(name), annotation, ast.expr() as value):
            kind = ast.unparse(annotation)
        case ast.Assign([ast.Name(name)], value):
            kind = ""
        case _:
            return None
    allowed, meaning = COMMENT.fullmatch(comment).group("allowed", "meaning")
    rest = (allowed or "", meaning or "")
    is_typed, variable = KIND.fullmatch(kind), ast.unparse(value).removesuffix(f".{name}")
    if sections and (not is_typed or rest[1].startswith(tuple("[({"))):  # a range that is none
        return None
    if is_typed and variable in sections:
        return Parameter(name, kind, *rest, sections[variable])
    try:
        default = ast.literal_eval(value)
    except (ValueError, TypeError):  # it is computed
        return None
    kind = kind if is_typed else _kind_of(default)
    return kind and Parameter(name, kind, *rest, "" if sections else section_of(where), default)


def _kind_of(value: object) -> str:
    """Return the type of a value as a parameters cell writes it; empty where it has none."""
    kinds = {type(item).__name__ for item in (value if isinstance(value, list) else [value])}
    kind = "float" if kinds == {"int", "float"} else "".join(kinds)
    if kind not in TYPES:
        return ""
    return f"list[{kind}]" if isinstance(value, list) else kind


def section_of(notebook: str) -> str:
    """Return the section of params.yaml for a papermill cell: the notebook's name as a stage's."""
    return re.sub(r"\W+", "_", Path(notebook).stem).strip("_").lower()


def sections_read(notebook: Path) -> list[str]:
    """Return the sections of params.yaml that a notebook reads."""
    code = [source.code(cell) for cell in source.read(notebook)["cells"]
            if cell["cell_type"] == "code"]
    return sorted({*sections_of(code).values(), *(
        parameter.section for parameter in declared(notebook).values() if is_in_params(parameter))})


def is_in_params(parameter: Parameter) -> bool:
    """Return whether params.yaml holds a value: the section of a papermill cell need not be."""
    if parameter.default is ...:
        return True
    return (root() / "params.yaml").exists() and parameter.section in params.read()


def is_tagged(cell: dict) -> bool:
    """Return whether a cell is the parameters cell."""
    return cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", [])


def sections_of(codes: Iterable[str]) -> dict[str, str]:
    """Return the variables that cells set to a section (`P = section("data")`), with its name."""
    return {match[1]: match[3] for code in codes for match in READS.finditer(code)}


def values_of(notebook: Path, given: dict[str, str] | None = None) -> dict:
    """Return the typed values of `notebook`: those `given` in its stage's command, else those of
    params.yaml, else the cell's own. Raise UserError for the first wrong one."""
    values, known, given = {}, declared(notebook), given or {}
    if unknown := given.keys() - known.keys():
        raise UserError(f"dvc.yaml gives {shown(notebook)} a value for {min(unknown)}, which its "
                        f"parameters cell does not declare.{meant(min(unknown), known)}")
    for name, parameter in known.items():
        section = _section(parameter.section, notebook) if is_in_params(parameter) else {}
        value = section.get(name, parameter.default)  # nothing accepts an Ellipsis
        where = "params.yaml" if section or parameter.default is ... else shown(notebook)
        if name in given:
            value, where = from_yaml(given[name]), "dvc.yaml"
        if not parameter.accepts(value):
            if value is ... and (close := difflib.get_close_matches(name, section, 1)):
                raise UserError(f"params.yaml has {parameter.section}.{close[0]}: should that be "
                                f"{name}?")
            found = "nothing" if value is ... else repr(value)
            meaning = f" ({parameter.meaning})" if parameter.meaning else ""
            raise UserError(f"{where}: {parameter.key} must be {parameter.expected}{meaning}, "
                            f"found {found}.")
        values[name] = parameter.typed(value)
    return values


def _section(name: str, notebook: Path) -> dict:
    """Return the section `name` of params.yaml, which `notebook` reads."""
    try:
        return vars(section(name))
    except KeyError as error:
        raise UserError(f"{error.args[0]}, which {shown(notebook)} reads.") from None


def check_known(notebooks: Iterable[Path]) -> None:
    """Raise UserError where a section that `notebooks` read holds what none of them declares."""
    known: dict[str, dict[str, Path]] = {}
    for notebook in notebooks:
        for parameter in filter(is_in_params, declared(notebook).values()):
            known.setdefault(parameter.section, {})[parameter.name] = notebook
    for name, names in known.items():
        *_, reader = names.values()
        for unknown in _section(name, reader).keys() - names.keys():
            raise UserError(f"params.yaml: {name}.{unknown} is unknown; {shown(reader)} knows "
                            f"{', '.join(sorted(names))}.{meant(unknown, names)}")


def shown(notebook: Path) -> str:
    """Return how messages name a notebook: by its path in the project."""
    return notebook.relative_to(root()).as_posix()
