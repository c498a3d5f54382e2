"""The contract: what the machinery must know of a project, from project.yaml, checked strictly (docs/contract.md)."""

import functools
import importlib
import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ruamel.yaml.error import YAMLError

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import CONTRACT, from_yaml, root

NAME = re.compile(r"[a-z][a-z0-9_]*")
HOOK = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
HOOKS = ("better", "prepare", "answer")


@dataclass(frozen=True)
class Metric:
    """The number that counts: its key in each metrics/NAME.json, and whether `min` or `max` is its goal."""

    key: str
    goal: str

    def better(self, new: float, old: float) -> bool:
        """Whether `new` is better than `old`; nothing is better than, and a number is better than, no number (NaN)."""
        if math.isnan(new) or math.isnan(old):
            return math.isnan(old) and not math.isnan(new)
        return new < old if self.goal == "min" else new > old

    def best_first(self, value: float) -> float:
        """A sort key: the best value first, no number (NaN) last."""
        return math.inf if math.isnan(value) else value if self.goal == "min" else -value


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from another one and still count as the same, where the arithmetic differs."""

    absolute: float = 0.0
    relative: float = 0.0

    def holds(self, new: float, old: float) -> bool:
        """Whether the two numbers are within it; NaN equals NaN and nothing else."""
        if math.isnan(new) or math.isnan(old):
            return math.isnan(new) and math.isnan(old)
        return math.isclose(new, old, rel_tol=self.relative, abs_tol=self.absolute)


@dataclass(frozen=True)
class Project:
    """project.yaml: `compare` is the stage that names the champion, `data` the parameter that names the data, `pins`
    the requirements that shape results; `pickle` says whether the project trusts models that are pickles; `page` is the
    page that the server shows first."""

    root: Path
    name: str
    metric: Metric
    compare: str | None = None
    data: str | None = None
    pins: str | None = None
    tolerance: Tolerance = Tolerance()
    pickle: bool = False
    page: str | None = None
    hooks: dict[str, str] = field(default_factory=dict)

    def compared(self) -> dict:
        """What the comparison found, such as the name of its champion; empty where there is none, or none yet."""
        return self.metrics(self.compare) if self.compare else {}

    def metrics(self, name: str) -> dict:
        """What metrics/NAME.json holds; empty where there is none. UserError where it is no JSON object."""
        path = self.root / "metrics" / f"{name}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except ValueError as error:
            raise UserError(f"metrics/{path.name} is not JSON ({error}): its notebook must write an object.") from None
        if not isinstance(content, dict):
            raise UserError(f"metrics/{path.name} must be a JSON object of names and numbers, found {str(content)[:60]}.")
        return content

    def hook(self, name: str) -> Callable | None:
        """The function of the science that the contract names for `name`, if it names one."""
        if name not in self.hooks:
            return None
        module, _, function = self.hooks[name].partition(":")
        notebooks = str(self.root / "notebooks")
        if notebooks not in sys.path:
            sys.path.insert(0, notebooks)
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise UserError(f"{CONTRACT}: hooks.{name} is {self.hooks[name]}, which cannot be had: {error}.") from None


@functools.cache
def load() -> Project:
    """The contract of the project in which this process runs."""
    return read(root())


def read(folder: Path) -> Project:
    """The contract at `folder`; UserError names the key, what is expected and what was found."""
    try:
        given = from_yaml((folder / CONTRACT).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise UserError(f"{CONTRACT} cannot be read: {' '.join(str(error).split())[:200]}.") from None
    possible = {"compare", "data", "pins", "tolerance", "pickle", "serve", "hooks"}
    given = _mapping("", given, {"name", "metric"}, possible)
    for key, expected, right in (
        ("name", "small letters, digits and _, a letter first", lambda value: NAME.fullmatch(value)),
        ("compare", "a stage's name", lambda value: NAME.fullmatch(value)),
        ("data", "a parameter such as data.source", lambda value: "." in value),
        ("pins", "a file of the project", lambda value: (folder / value).is_file()),
    ):
        if key in given and not (isinstance(given[key], str) and right(given[key])):
            _refuse(key, expected, given[key])
    if type(given.get("pickle", False)) is not bool:
        _refuse("pickle", "true or false", given["pickle"])
    given["metric"] = _metric(given["metric"])
    given["tolerance"] = _tolerance(given.get("tolerance", {}))
    serve = _mapping("serve", given.pop("serve", {}), set(), {"page"})
    if "page" in serve:
        page = given["page"] = serve["page"]
        inside = isinstance(page, str) and not Path(page).is_absolute() and ".." not in Path(page).parts
        if not inside or not page.endswith(".html") or not (folder / page).is_file():
            _refuse("serve.page", "an HTML file of the project", page)
    given["hooks"] = _mapping("hooks", given.get("hooks", {}), set(), set(HOOKS))
    for key, value in given["hooks"].items():
        if not isinstance(value, str) or not HOOK.fullmatch(value):
            _refuse(f"hooks.{key}", "module:function", value)
    return Project(folder, **given)


def _metric(given: object) -> Metric:
    given = _mapping("metric", given, {"key", "goal"}, set())
    if not isinstance(given["key"], str) or not given["key"]:
        _refuse("metric.key", "the name of a number in metrics/NAME.json", given["key"])
    if given["goal"] not in ("min", "max"):
        _refuse("metric.goal", "min or max", given["goal"])
    return Metric(**given)


def _tolerance(given: object) -> Tolerance:
    given = _mapping("tolerance", given, set(), {"absolute", "relative"})
    for key, value in given.items():
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            _refuse(f"tolerance.{key}", "a number of at least 0", value)
    return Tolerance(**given)


def _mapping(name: str, given: object, needed: set[str], possible: set[str]) -> dict:
    where = f"{CONTRACT}: {name}" if name else CONTRACT
    if not isinstance(given, dict):
        raise UserError(f"{where} must hold {', '.join(sorted(needed | possible))}, found {given!r}.")
    if unknown := [key for key in given if key not in needed | possible]:
        raise UserError(f"{where} has no key {unknown[0]!r}; it knows {', '.join(sorted(needed | possible))}.")
    if missing := sorted(needed - set(given)):
        raise UserError(f"{where} lacks {missing[0]}; it must hold {', '.join(sorted(needed))}.")
    return dict(given)


def _refuse(key: str, expected: str, found: object) -> None:
    raise UserError(f"{CONTRACT}: {key} must be {expected}, found {found!r}.")


def recorded(lock: str) -> dict[str, dict]:
    """The stages that the text of a dvc.lock records, by name."""
    return (from_yaml(lock) or {}).get("stages") or {}
