"""The `sweep:` section of params.yaml, checked before anything starts."""

import hashlib
import json
from dataclasses import dataclass

from nbproof.notebook import params as values
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest, root
from nbproof.pipeline import config
from nbproof.pipeline.dag import Stage
from nbproof.runner import schema, source

COUNT = ("a positive whole number", lambda value: type(value) is int and value > 0)
KNOWN = {
    "trials": COUNT,
    "minutes": ("a positive number", lambda value: type(value) in (int, float) and value > 0),
    "metric": ("a name", lambda value: isinstance(value, str)),
    "goal": ("min or max", lambda value: value in ("min", "max")),
    "grace": COUNT,
    "reduction": ("a whole number above 1", lambda value: type(value) is int and value > 1),
    "space": ("a mapping", lambda value: isinstance(value, dict) and value),
}


@dataclass(frozen=True)
class Sweep:
    """What to try for one notebook: `space` maps a parameter to its choices (a list) or its range {low, high, log};
    the values of all others are `fixed`. `grace` is in steps of the notebook's progress."""

    stage: Stage
    trials: int
    minutes: float
    metric: config.Metric
    grace: int
    reduction: int
    space: dict
    fixed: dict

    @property
    def name(self) -> str:
        """What people call the stage."""
        return self.stage.short

    def digest(self) -> str:
        """Changes with all that is tried or fixed and with what the stage depends on: another one, another sweep."""
        metric = [self.metric.key, self.metric.goal]
        said = [self.space, self.fixed, metric, self.grace, self.reduction, self.trials]
        whole = [json.dumps(said, sort_keys=True), *map(_content, sorted(self.stage.deps))]
        return hashlib.sha256("\0".join(whole).encode()).hexdigest()[:12]

    def distributions(self) -> dict:
        """The space as Optuna has it; choices as JSON, so that lists and null may be among them."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        declared, found = schema.declared(root() / self.stage.notebook), {}
        for name, tried in self.space.items():
            if isinstance(tried, list):
                found[name] = CategoricalDistribution([json.dumps(value) for value in tried])
            else:
                kind = IntDistribution if declared[name].type.startswith("int") else FloatDistribution
                found[name] = kind(tried["low"], tried["high"], log=tried.get("log", False))
        return found

    def values(self, proposed: dict) -> dict:
        """What Optuna proposes, as the notebook takes it."""
        return {name: json.loads(value) if isinstance(self.space[name], list) else value
                for name, value in proposed.items()}


def _content(dependency: str) -> str:
    """The digest of what a dependency holds: of a notebook its source, of code not what Python keeps beside it."""
    path = root() / dependency
    if not path.exists():
        raise UserError(f"{dependency} is not there yet: make run (or dvc pull) makes it.")
    if path.suffix == ".ipynb":
        return source.text(source.strip(source.read(path)))
    inside = [each for each in sorted(path.rglob("*")) if each.is_file() and "__pycache__" not in each.parts]
    return " ".join(f"{each.relative_to(path).as_posix()} {digest(each)}" for each in inside or [path])


def read(name: str, found: dict[str, Stage]) -> Sweep:
    """The sweep of the stage that people call `name`; UserError names file, key, what is expected, what was found."""
    section = values.read().get("sweep")
    if not isinstance(section, dict) or name not in section:
        there = ", ".join(section) if isinstance(section, dict) and section else "none"
        raise UserError(f"params.yaml: sweep.{name} is missing: it says what to try; there are {there}.")
    stage = next((each for each in found.values() if each.short == name and each.notebook), None)
    if stage is None:
        there = ", ".join(each.short for each in found.values() if each.notebook)
        raise UserError(f"params.yaml: sweep.{name} is there, but dvc.yaml has no stage {name} that runs a notebook; it "
                      f"has {there}. Correct the name, or remove its section.")
    given, notebook = section[name], root() / stage.notebook
    _check_keys(f"sweep.{name}", given)
    declared, fixed = schema.declared(notebook), schema.values_of(notebook)
    tried = {key: _tried(f"sweep.{name}.space.{key}", value, declared.get(key), schema.shown(notebook))
             for key, value in given["space"].items()}
    return Sweep(stage, given["trials"], float(given.get("minutes", 60)), _metric(f"sweep.{name}", given),
                 given.get("grace", 1), given.get("reduction", 3), tried,
                 {key: value for key, value in fixed.items() if key not in tried})


def check_all(found: dict[str, Stage]) -> None:
    """Check every sweep of params.yaml; UserError at the first that is wrong."""
    section = values.read().get("sweep")
    if section is not None and not isinstance(section, dict):
        raise UserError(f"params.yaml: sweep must hold names of stages with what to try, found {section!r}.")
    for name in section or {}:
        read(name, found)


def _metric(key: str, given: dict) -> config.Metric:
    ours = config.load().metric
    name = given.get("metric", ours.key)
    if name != ours.key and "goal" not in given:
        raise UserError(f"params.yaml: {key}.metric is {name}, not the project's {ours.key}: say whether less or more of "
                      f"it is better ({key}.goal: min or max).")
    return config.Metric(name, given.get("goal", ours.goal))


def _check_keys(where: str, given: object) -> None:
    if not isinstance(given, dict):
        raise UserError(f"params.yaml: {where} must hold {', '.join(KNOWN)}, found {given!r}.")
    for key, value in given.items():
        if key not in KNOWN:
            raise UserError(f"params.yaml: {where}.{key} is unknown; it knows {', '.join(KNOWN)}.")
        expected, is_right = KNOWN[key]
        if not is_right(value):
            raise UserError(f"params.yaml: {where}.{key} must be {expected}, found {value!r}.")
    for key in {"trials", "space"} - set(given):
        raise UserError(f"params.yaml: {where}.{key} is missing.")


def _tried(key: str, tried: object, parameter: schema.Parameter | None, notebook: str) -> object:
    """What to try of one parameter, typed."""
    if key.rpartition(".")[2] in ("threads", "device"):
        raise UserError(f"params.yaml: {key}: what a trial takes of a machine is the same for all: leave it out.")
    if parameter is None:
        raise UserError(f"params.yaml: {key} is unknown; {notebook} does not declare it.")
    is_range = isinstance(tried, dict) and {"low", "high"} <= set(tried) <= {"low", "high", "log"}
    if is_range and type(tried.get("log", False)) is bool and parameter.type.split(" ")[0] in ("int", "float"):
        ends = {f"{key}.{end}": tried[end] for end in ("low", "high")}
    elif isinstance(tried, list) and tried:
        ends = {f"{key}: {value!r}": value for value in tried}
    else:
        raise UserError(f"params.yaml: {key} must be a list of choices or a range such as "
                      f"{{low: 0.001, high: 0.1, log: true}}, found {tried!r}.")
    for where, value in ends.items():
        if not parameter.accepts(value):
            raise UserError(f"params.yaml: {where.partition(': ')[0]} must be {parameter.expected}, found {value!r}.")
    if isinstance(tried, list):
        return [parameter.typed(value) for value in tried]
    if None in ends.values() or tried["low"] >= tried["high"] or (tried.get("log") and tried["low"] <= 0):
        also = ", above 0 for log" if tried.get("log") else ""
        raise UserError(f"params.yaml: {key} must go from a lower to a higher number{also}, found {tried!r}.")
    return tried
