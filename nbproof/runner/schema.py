"""Parameters with one definition: values in params.yaml; name, type, range and meaning in the notebook's tagged cell.

`P = section("models.cnn")` in an earlier cell names a section; `lr: float = P.lr  # (0, 1] peak learning rate` in the
tagged one declares a parameter of it, with an interval, a set such as {auto, cpu}, or neither before the meaning; of a
list they hold for each element. All is checked before a kernel starts, and no name or value reaches a shell.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nbproof.notebook.errors import UserError, meant
from nbproof.notebook.files import root
from nbproof.notebook.params import read
from nbproof.runner import source

TYPES = {"int": int, "float": float, "bool": bool, "str": str}
NAME = re.compile(r"[a-z][a-z0-9_]*")
KIND = re.compile(r"(?:list\[(?P<item>int|float|bool|str)\]|(?P<plain>int|float|bool|str))(?P<null> \| None)?")
INTERVAL = re.compile(r"([\[(])\s*([^\s,]+)\s*,\s*([^\s,\])]+)\s*([\])])\s*(.*)")
CHOICES = re.compile(r"\{([^}]*)\}\s*(.*)")


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell; `allowed` is the interval or set as written, empty for anything of the type;
    `section` is the one of params.yaml that holds its value."""

    name: str
    type: str
    allowed: str
    meaning: str
    section: str

    @property
    def key(self) -> str:
        """Its place in params.yaml, such as models.cnn.lr."""
        return f"{self.section}.{self.name}"

    @property
    def expected(self) -> str:
        """Type and range in words."""
        each = "each " if self.type.startswith("list") and self.allowed else ""
        return f"{self.type}{f', {each}in {self.allowed}' if self.allowed else ''}"

    def accepts(self, value: object) -> bool:
        """Whether `value` has the type (an int may stand for a float, a bool for nothing else) and is in the range."""
        kind = KIND.fullmatch(self.type)
        if value is None:
            return bool(kind["null"])
        if kind["item"]:
            return isinstance(value, list) and all(self._accepts_one(kind["item"], each) for each in value)
        return self._accepts_one(kind["plain"], value)

    def _accepts_one(self, kind: str, value: object) -> bool:
        right_type = type(value) is TYPES[kind] or (kind == "float" and type(value) is int)
        if not right_type or (kind == "float" and not abs(value) <= sys.float_info.max):
            return False
        if not self.allowed:
            return True
        if self.allowed.startswith("{"):
            return str(value) in re.split(r"\s*,\s*", self.allowed[1:-1].strip())
        opens, low, high, closes, _ = INTERVAL.fullmatch(self.allowed).groups()
        above = value > float(low) or (opens == "[" and value == float(low))
        below = value < float(high) or (closes == "]" and value == float(high))
        return above and below

    def typed(self, value: object) -> object:
        """An accepted value as the notebook's type: an int that stands for a float becomes one."""
        if isinstance(value, list):
            return [self.typed(each) for each in value]
        return float(value) if "float" in self.type and value is not None else value


def declared(notebook: Path) -> dict[str, Parameter]:
    """What the tagged cell of `notebook` declares, in order; UserError names the line that is not a declaration."""
    return declared_in(source.read(notebook)["cells"], shown(notebook))


def declared_in(cells: list[dict], where: str) -> dict[str, Parameter]:
    """What the tagged one of a notebook's `cells` declares; `where` names the notebook in a refusal."""
    tagged = [number for number, cell in enumerate(cells) if is_tagged(cell)]
    if len(tagged) > 1:
        raise UserError(f"{where} must have at most one cell tagged `parameters`, found {len(tagged)}.")
    if not tagged:
        return {}
    before = [source.code(cell) for cell in cells[: tagged[0]] if cell["cell_type"] == "code"]
    return _declared(source.code(cells[tagged[0]]), sections_of(before), where)


def is_tagged(cell: dict) -> bool:
    """Whether a cell is the parameters cell."""
    return cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", [])


def sections_of(codes: Iterable[str]) -> dict[str, str]:
    """The variables that cells set to a section of params.yaml (`P = section("data")`), each with its section."""
    found = {}
    for code in codes:
        for match in re.finditer(r"""^(\w+)\s*=\s*section\(\s*(["'])([\w.]+)\2\s*\)""", code, re.MULTILINE):
            found[match[1]] = match[3]
    return found


def _declared(code: str, sections: dict[str, str], where: str) -> dict[str, Parameter]:
    try:
        lines = ast.parse(code).body
    except SyntaxError as error:
        raise UserError(f"{where}: line {error.lineno} of the parameters cell is not Python: {error.msg}.") from None
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found: dict[str, Parameter] = {}
    for line in lines:
        each = _parameter(line, comments.get(line.lineno, ""), sections, where)
        if each.name in found:
            raise UserError(f"{where}: `{ast.unparse(line)}` in the parameters cell comes twice.")
        found[each.name] = each
    return found


def _parameter(line: ast.stmt, comment: str, sections: dict[str, str], where: str) -> Parameter:
    written = f"{where}: `{ast.unparse(line)}` in the parameters cell"
    if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
        raise UserError(f"{written} must read `name: type = P.name  # [low, high] meaning`.")
    name, kind = line.target.id, ast.unparse(line.annotation)
    match line.value:
        case ast.Attribute(ast.Name(variable), same) if name == same:
            if variable not in sections:
                raise UserError(f'{written} reads {variable}: an earlier cell must say `{variable} = section("...")`.')
        case _:
            raise UserError(f"{written} must read `{name}: {kind} = P.{name}`; where it is an exploration's value, "
                          "`make adopt RUN=last` takes it into params.yaml and restores the line.")
    if not KIND.fullmatch(kind):
        raise UserError(f"{written} has a type other than {', '.join(TYPES)}, list[...] of one, or one with `| None`.")
    if "=" in comment:
        raise UserError(f"{written} has an = in its comment.")
    allowed, meaning = _allowed(comment, kind, f"{where}: the range of `{ast.unparse(line)}`")
    return Parameter(name, kind, allowed, meaning, sections[variable])


def _allowed(comment: str, kind: str, where: str) -> tuple[str, str]:
    """The range and the meaning of a line's comment."""
    if choices := CHOICES.fullmatch(comment):
        return comment[: comment.index("}") + 1], choices[2]
    if comment[:1] not in ("[", "("):
        return "", comment
    interval = INTERVAL.fullmatch(comment)
    try:
        if not re.search("int|float", kind) or not float(interval[2]) <= float(interval[3]):
            raise ValueError
    except (TypeError, ValueError):
        raise UserError(f"{where} must be two numbers such as [1, 100] or (0, 1], for an int or a float; "
                      f"found `{comment}`.") from None
    return comment[: interval.end(4)], interval[5]


def values_of(notebook: Path) -> dict:
    """The values of `notebook` from params.yaml, typed; UserError names file, key, what is expected, what was found."""
    given, values, known = read(), {}, declared(notebook)
    for each in known.values():
        section = _section(given, each.section, notebook)
        if each.name not in section:
            raise UserError(f"params.yaml: {each.key} is missing; {shown(notebook)} expects {each.expected} "
                          f"({each.meaning}).{meant(each.name, set(section) - set(known))}")
        if not each.accepts(value := section[each.name]):
            raise UserError(f"params.yaml: {each.key} must be {each.expected} ({each.meaning}), found {value!r}.")
        values[each.name] = each.typed(value)
    return values


def _section(values: dict, name: str, notebook: Path) -> dict:
    """One section of params.yaml, each part of its name checked."""
    for part in name.split("."):
        if not NAME.fullmatch(part):
            raise UserError(f"{shown(notebook)}: the section {name!r} of params.yaml; a name is small letters, digits "
                          "and _, a letter first.")
        if not isinstance(values, dict) or part not in values:
            close = meant(part, values) if isinstance(values, dict) else ""
            raise UserError(f"params.yaml has no section {name}, which {shown(notebook)} reads.{close}")
        values = values[part]
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"params.yaml: {name} must hold parameters with their values, found {values!r}.")
    return values


def check_known(notebooks: Iterable[Path]) -> None:
    """UserError where a section that these notebooks read holds what none of them declares."""
    known: dict[str, set[str]] = {}
    readers: dict[str, Path] = {}
    for notebook in notebooks:
        for each in declared(notebook).values():
            known.setdefault(each.section, set()).add(each.name)
            readers[each.section] = notebook
    values = read()
    for name, declared_names in known.items():
        for key in _section(values, name, readers[name]):
            if key not in declared_names:
                close = f"{shown(readers[name])} knows {', '.join(sorted(declared_names))}"
                raise UserError(f"params.yaml: {name}.{key} is unknown; {close}.{meant(key, declared_names)}")


def shown(notebook: Path) -> str:
    """A notebook as messages name it: by its path in the project."""
    inside = notebook.is_relative_to(root())
    return notebook.relative_to(root()).as_posix() if inside else f"{notebook.parent.name}/{notebook.name}"
