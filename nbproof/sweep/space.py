"""The `sweep:` section of params.yaml, checked before anything starts."""

import json
import re
from dataclasses import dataclass

from optuna import Trial
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nbproof.notebook import params
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import config
from nbproof.pipeline.dag import Stage
from nbproof.runner import schema

COUNT = ("a positive whole number", r"[1-9]\d*")
KNOWN = {  # what is expected, in words and as a pattern of the value as JSON
    "trials": COUNT,
    "minutes": ("a positive number", r"\d*[1-9]\d*(\.\d+)?|0\.\d*[1-9]\d*"),
    "metric": ("a name", '".+"'),
    "goal": ("min or max", '"(min|max)"'),
    "grace": COUNT,
    "reduction": ("a whole number above 1", r"[2-9]|[1-9]\d+"),
    "space": ("a mapping", r"\{.+\}"),
}
RANGES = {"int": IntDistribution, "float": FloatDistribution}


@dataclass(frozen=True)
class Sweep:
    """What to try for one notebook: `space` by parameter, choices as JSON texts, so that lists and
    null can be among them; all other values are `fixed`. `grace` is in steps of its progress."""

    stage: Stage
    trials: int
    minutes: float
    metric: config.Metric
    grace: int
    reduction: int
    space: dict[str, CategoricalDistribution | FloatDistribution | IntDistribution]
    fixed: dict

    def suggest(self, trial: Trial) -> dict:
        """Let Optuna propose the values of a trial; return them as the notebook takes them."""
        ranges = {IntDistribution: trial.suggest_int, FloatDistribution: trial.suggest_float}
        for name, tried in self.space.items():
            if isinstance(tried, CategoricalDistribution):
                trial.suggest_categorical(name, tried.choices)
            else:
                ranges[type(tried)](name, tried.low, tried.high, log=tried.log)
        return typed(trial.params)


def typed(proposed: dict) -> dict:
    """Return what Optuna has proposed as the notebook takes it."""
    return {name: json.loads(value) if isinstance(value, str) else value
            for name, value in proposed.items()}


def read(name: str, stages: dict[str, Stage]) -> Sweep:
    """Return the sweep of the stage `name`; UserError names the key and what is expected."""
    given, sweep = params.read(), f"params.yaml: sweep.{name}"
    given = given["sweep"].get(name) if isinstance(given.get("sweep"), dict) else None
    stage = next((stage for stage in stages.values() if stage.short == name), None)
    if stage is None or not stage.notebook:
        raise UserError(f"{sweep}: dvc.yaml has no stage {name} that runs a notebook.")
    if not isinstance(given, dict) or not {"trials", "space"} <= set(given) <= set(KNOWN):
        raise UserError(f"{sweep} must hold trials and space, and may hold {', '.join(KNOWN)}; "
                        f"found {given!r}.")
    for key, value in given.items():
        expected, pattern = KNOWN[key]
        if not re.fullmatch(pattern, json.dumps(value, default=str)):
            raise UserError(f"{sweep}.{key} must be {expected}, found {value!r}.")
    ours = config.load().metric
    metric = config.Metric(given.get("metric", ours.key), given.get("goal", ours.goal))
    if metric.key != ours.key and "goal" not in given:
        raise UserError(f"{sweep}.metric is {metric.key}: say whether less or more of it is "
                        f"better (sweep.{name}.goal: min or max).")
    path = root() / stage.notebook
    declared, fixed = schema.declared(path), schema.values_of(path, stage.values)
    space = {key: _distribution(f"{sweep}.space.{key}", tried, declared.get(key))
             for key, tried in given["space"].items()}
    return Sweep(stage, given["trials"], float(given.get("minutes", 60)), metric,
                 given.get("grace", 1), given.get("reduction", 3), space,
                 {key: value for key, value in fixed.items() if key not in space})


def _distribution(key: str, tried: object, parameter: schema.Parameter | None):
    """Return what to try of one parameter as Optuna has it."""
    if parameter is None or parameter.name in ("threads", "device"):
        raise UserError(f"{key} cannot be tried: the notebook must declare it, and threads and "
                        "device are the same for all trials.")
    is_list = isinstance(tried, list)
    try:
        for value in tried if is_list else (tried["low"], tried["high"]):
            if not parameter.accepts(value):
                raise UserError(f"{key} must be {parameter.expected}, found {value!r}.")
        if not is_list:
            return RANGES[parameter.type](**tried)
        return CategoricalDistribution([json.dumps(parameter.typed(value)) for value in tried])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{key} must be a list of choices or a range such as {{low: 0.001, high: "
                        f"0.1, log: true}}, found {tried!r} ({error}).") from None
