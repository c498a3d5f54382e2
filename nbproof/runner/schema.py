"""Parameters: values in params.yaml; name, type, range and meaning in the notebook's tagged cell.

An earlier cell names a section, `P = section("models.cnn")`; a line of the tagged cell declares one
of its parameters: `lr: float = P.lr  # (0, 1] peak learning rate`. Before the meaning stands an
interval, a set such as {auto, cpu}, or neither; of a list it holds for each element. A line such as
`model: str = "cnn"` has its own default, and another value in a stage with
`cmd: nbproof stage model=mlp`. All is checked before a kernel starts.
"""

import ast
import difflib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nbproof.notebook.errors import UserError, meant
from nbproof.notebook.files import from_yaml, root
from nbproof.notebook.params import section
from nbproof.runner import source

TYPES = {"int": int, "float": float, "bool": bool, "str": str}
KIND = re.compile(r"(list\[)?(int|float|bool|str)(?(1)\])( \| None)?")
READS = re.compile(r"""^(\w+)\s*=\s*section\(\s*(["'])(.*?)\2\s*\)""", re.MULTILINE)
NUMBER = r"\s*(-?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf))\s*"
INTERVAL = re.compile(rf"([\[(]){NUMBER},{NUMBER}([\])])")
LITERAL = r""" "[^"]*" | '[^']*' | \[[^\]\#]*\] | -?[\d.]+(e[-+]?\d+)? | True | False | None """
DECLARES = re.compile(rf"""
    (?P<name>[a-zA-Z]\w*) \s*:\s* (?P<type>[^=#]*?) \s*=\s*
    ((?P<variable>[a-zA-Z_]\w*)\.(?P=name) | (?P<default>{LITERAL})) \s*
    (\#\s* (?P<allowed>\{{[^}}]*\}}|{INTERVAL.pattern})? \s* (?P<meaning>[^\[({{\s].*)?)?
    """, re.VERBOSE)


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
    found: dict[str, Parameter] = {}
    for line in "\n".join(map(source.code, tagged)).splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            parameter = _parameter(line, sections, f"{where}: `{line}` in the parameters cell")
            found[parameter.name] = parameter
    return found


def is_tagged(cell: dict) -> bool:
    """Return whether a cell is the parameters cell."""
    return cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", [])


def sections_of(codes: Iterable[str]) -> dict[str, str]:
    """Return the variables that cells set to a section (`P = section("data")`), with its name."""
    return {match[1]: match[3] for code in codes for match in READS.finditer(code)}


def _parameter(line: str, sections: dict[str, str], where: str) -> Parameter:
    match = DECLARES.fullmatch(line)
    if not match or not KIND.fullmatch(match["type"]):
        raise UserError(f"{where} must read `name: type = P.name  # [low, high] meaning`: a type "
                        f"is {', '.join(TYPES)}, list[...] of one, or one with `| None`; the range "
                        "is of two numbers, a set such as {a, b}, or missing. `nbproof adopt last` "
                        "takes the value of an exploration into params.yaml.")
    if match["default"]:
        return Parameter(match["name"], match["type"], match["allowed"] or "",
                         match["meaning"] or "", "", _literal(match["default"], where))
    if match["variable"] not in sections:
        raise UserError(f"{where} reads {match['variable']}: an earlier cell must say "
                        f"`{match['variable']} = section(\"models.cnn\")`, say.")
    return Parameter(match["name"], match["type"], match["allowed"] or "", match["meaning"] or "",
                     sections[match["variable"]])


def _literal(text: str, where: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise UserError(f"{where} must set a number, a text, True, False, None or a list of these, "
                        "or read a section of params.yaml.") from None


def values_of(notebook: Path, given: dict[str, str] | None = None) -> dict:
    """Return the typed values of `notebook`: those `given` in its stage's command, else those of
    params.yaml, else the cell's own. Raise UserError for the first wrong one."""
    values, known, given = {}, declared(notebook), given or {}
    if unknown := given.keys() - known.keys():
        raise UserError(f"dvc.yaml gives {shown(notebook)} a value for {min(unknown)}, which its "
                        f"parameters cell does not declare.{meant(min(unknown), known)}")
    for name, parameter in known.items():
        section = _section(parameter.section, notebook) if parameter.section else {}
        value = section.get(name, parameter.default)  # nothing accepts an Ellipsis
        where = "params.yaml" if parameter.section else shown(notebook)
        if name in given:
            value, where = from_yaml(given[name]), "dvc.yaml"
        if not parameter.accepts(value):
            misspelt = difflib.get_close_matches(name, section.keys() - known.keys(), 1)
            if value is ... and misspelt:
                raise UserError(f"params.yaml has {parameter.section}.{misspelt[0]}: should that "
                                f"be {name}?")
            found = "nothing" if value is ... else repr(value)
            raise UserError(f"{where}: {parameter.key} must be {parameter.expected} "
                            f"({parameter.meaning}), found {found}.")
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
        for parameter in declared(notebook).values():
            if not parameter.section:
                continue
            known.setdefault(parameter.section, {})[parameter.name] = notebook
    for name, names in known.items():
        *_, reader = names.values()
        for unknown in _section(name, reader).keys() - names.keys():
            raise UserError(f"params.yaml: {name}.{unknown} is unknown; {shown(reader)} knows "
                            f"{', '.join(sorted(names))}.{meant(unknown, names)}")


def shown(notebook: Path) -> str:
    """Return how messages name a notebook: by its path in the project."""
    return notebook.relative_to(root()).as_posix()
