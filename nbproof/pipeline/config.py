"""What nbproof must know of a project: project.yaml, checked strictly (docs/contract.md).

Dataclasses and patterns, not pydantic: importing that takes 0.2 s, a third of `dvc status`.
"""

import contextlib
import functools
import json
import math
import pkgutil
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ruamel.yaml.error import YAMLError

from nbproof.notebook import params
from nbproof.notebook.errors import UserError, meant
from nbproof.notebook.files import CONTRACT, from_yaml, root

NAME = re.compile(r"[a-z][a-z0-9_]*")
NUMBER = ("a number of at least 0", r"\d+(\.\d+)?(e[-+]?\d+)?")
HOOK = ("module:function", r'"[A-Za-z_][\w.]*:[A-Za-z_]\w*"')
NOTEBOOK = ("a notebook of the project", r'"[^/].*\.ipynb"')
RULES = {  # of each key what is expected, in words and as a pattern of the value as JSON
    "name": ("small letters, digits and _, a letter first", f'"{NAME.pattern}"'),
    "metric": {"key": ("the name of a number in metrics/NAME.json", '".+"'),
               "goal": ("min or max", '"(min|max)"')},
    "compare": ("a stage's name", f'"{NAME.pattern}"'),
    "data": ("a parameter such as data.source", r'".+\..+"'),
    "pins": ("a file of the project", '"[^/].*"'),
    "tolerance": {"absolute": NUMBER, "relative": NUMBER},
    "observe": ("fail or warn", '"(fail|warn)"'),
    "pickle": ("true or false", "true|false"),
    "preload": ("a list of modules", r'\[("[\w.]+"(, )?)*\]'),
    "serve": {"page": ("an HTML file of the project", r'"[^/].*\.html"'),
              "drift": NOTEBOOK, "harvest": NOTEBOOK},
    "hooks": {"better": HOOK, "prepare": HOOK, "answer": HOOK},
}
NEEDED = {"name", "key", "goal"}
FILES = ("pins", "page", "drift", "harvest")


@dataclass(frozen=True)
class Metric:
    """The number that counts: its key in each metrics/NAME.json; `goal` is `min` or `max`."""

    key: str
    goal: str

    def better(self, new: float, old: float) -> bool:
        """Return whether `new` is better than `old`; any number is better than NaN."""
        return self.best_first(new) < self.best_first(old)

    def best_first(self, value: float) -> float:
        """Return a sort key: the best value first, NaN last."""
        return math.inf if math.isnan(value) else value if self.goal == "min" else -value


@dataclass(frozen=True)
class Tolerance:
    """How far apart two numbers may be and still count as the same, on different processors."""

    absolute: float = 0.0
    relative: float = 0.0

    def __str__(self) -> str:
        return f"{self.absolute:g}" + (f" or {self.relative:.2%}" if self.relative else "")

    def holds(self, new: float, old: float) -> bool:
        """Return whether the two numbers are within the tolerance; NaN equals NaN."""
        near = math.isclose(new, old, rel_tol=self.relative, abs_tol=self.absolute)
        return near or math.isnan(new) and math.isnan(old)


@dataclass(frozen=True)
class Project:
    """project.yaml. `compare` is the stage that names the champion, `data` the parameter that
    names the data, `pins` the file of requirements that shape results; `observe` is `warn` where
    a file that dvc.yaml does not list fails no stage; `pickle` allows models
    that are pickles; `page` is the page that the server shows first,
    `drift` and `harvest` are notebooks that read its log."""

    root: Path
    name: str
    metric: Metric = Metric("", "max")  # of a project without one: no number has its name
    compare: str | None = None
    data: str | None = None
    pins: str | None = None
    tolerance: Tolerance = Tolerance()
    pickle: bool = False
    preload: list[str] = field(default_factory=list)
    page: str | None = None
    drift: str | None = None
    harvest: str | None = None
    hooks: dict[str, str] = field(default_factory=dict)
    observe: str = "fail"

    def compared(self) -> dict:
        """Return the comparison's metrics, among them its `champion`; {} if it has not run."""
        return self.metrics(self.compare) if self.compare else {}

    def metrics(self, name: str) -> dict:
        """Return metrics/NAME.json, {} if it is missing; UserError where it is no JSON object."""
        path = self.root / "metrics" / f"{name}.json"
        text = path.read_text(encoding="utf-8") if path.exists() else "{}"
        with contextlib.suppress(ValueError):
            if isinstance(content := json.loads(text), dict):
                return content
        raise UserError(f"metrics/{name}.json must be a JSON object of names and numbers, found "
                        f"{text[:60]!r}.")

    def hook(self, name: str) -> Callable | None:
        """Return the project's own function for `name`, if project.yaml names one."""
        if name not in self.hooks:
            return None
        sys.path.insert(0, str(self.root / "notebooks"))
        try:
            return pkgutil.resolve_name(self.hooks[name])
        except (ImportError, AttributeError) as error:
            raise UserError(f"{CONTRACT}: hooks.{name} is {self.hooks[name]}, which cannot be "
                            f"imported: {error}.") from None


@functools.cache
def load() -> Project:
    """Return the project in which this process runs."""
    return read(root())


def read(folder: Path) -> Project:
    """Return the project at `folder`; UserError names the key, what is expected, what was found."""
    content = params.read(CONTRACT, folder)
    _check(folder, content, RULES)
    if "metric" in content:
        content["metric"] = Metric(**content["metric"])
    content["tolerance"] = Tolerance(**content.get("tolerance", {}))
    return Project(folder, **content.pop("serve", {}), **content)


def _check(folder: Path, content: object, rules: dict, section: str = "") -> None:
    """Raise UserError for the first key of a section of project.yaml that breaks its rule."""
    unknown = content.keys() - rules.keys() if isinstance(content, dict) else [content]
    if unknown:
        where = f"{CONTRACT}: {section.rstrip('.')}" if section else CONTRACT
        raise UserError(f"{where} must hold {', '.join(sorted(rules))}, "
                        f"found {', '.join(sorted(map(str, unknown)))}."
                        f"{meant(str(min(unknown, key=str)), rules)}")
    for key in [*content, *sorted(NEEDED & rules.keys() - content.keys())]:
        value, rule = content.get(key), rules[key]
        if isinstance(rule, dict):
            _check(folder, value, rule, f"{key}.")
            continue
        expected, pattern = rule
        fits = re.fullmatch(pattern, json.dumps(value, ensure_ascii=False, default=str))
        if not fits or key in FILES and (".." in value or not (folder / value).is_file()):
            raise UserError(f"{CONTRACT}: {section}{key} must be {expected}, found {value!r}.")


def data_value() -> object:
    """Return the value of the parameter that names the data, None without one; UserError where
    params.yaml does not have it."""
    key = load().data
    try:
        return params.value(key) if key else None
    except (KeyError, TypeError):
        raise UserError(f"{CONTRACT}: data is {key}, which params.yaml does not have.") from None


def check_metrics(name: str) -> str:
    """Return why the stage of the model `name` fails where metrics/NAME.json lacks the metric.

    Such a model would be missing from every table. Empty where all is well."""
    key = load().metric.key
    try:
        value = load().metrics(name).get(key) if key else 0
    except UserError as error:
        return f"because {error}"
    if type(value) in (int, float):
        return ""
    return (f"because metrics/{name}.json must hold a number as {key}, the metric that {CONTRACT} "
            f"names, found {value!r:.60}.")


def recorded(lock: str) -> dict[str, dict]:
    """Return the stages that the text of a dvc.lock records, by name; {} where it is no YAML."""
    with contextlib.suppress(YAMLError):
        return (from_yaml(lock) or {}).get("stages") or {}
    return {}
