"""The `sweep:` section of params.yaml, checked before anything starts."""

import json
from dataclasses import dataclass

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import SuccessiveHalvingPruner

from nbproof.notebook import params
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import config
from nbproof.pipeline.dag import Stage
from nbproof.runner import schema

RANGES = {"int": IntDistribution, "float": FloatDistribution}


@dataclass(frozen=True)
class Sweep:
    """What to try for one notebook: `space` by parameter, choices as JSON texts, so that lists and
    null can be among them; all other values are `fixed`. `grace` is in steps of its progress."""

    stage: Stage
    metric: config.Metric
    space: dict[str, CategoricalDistribution | FloatDistribution | IntDistribution]
    fixed: dict
    trials: int
    minutes: float = 60
    grace: int = 1
    reduction: int = 3

    def __post_init__(self) -> None:
        SuccessiveHalvingPruner(self.grace, self.reduction)  # Optuna refuses what cannot be
        if not range(self.trials) or self.minutes <= 0 or self.metric.goal not in ("min", "max"):
            raise ValueError("trials and minutes are above 0, and the goal is min or max")


def typed(proposed: dict) -> dict:
    """Return what Optuna has proposed as the notebook takes it."""
    return {name: json.loads(value) if isinstance(value, str) else value
            for name, value in proposed.items()}


def read(name: str, stages: dict[str, Stage]) -> Sweep:
    """Return the sweep of the stage `name`; UserError says what its section must hold."""
    stage = next((stage for stage in stages.values() if stage.short == name), None)
    if stage is None or not stage.notebook:
        raise UserError(f"dvc.yaml has no stage {name} that runs a notebook.")
    path, ours, where = root() / stage.notebook, config.load().metric, f"params.yaml: sweep.{name}"
    declared, fixed = schema.declared(path), schema.values_of(path, stage.values)
    try:
        given = dict(params.read()["sweep"][name])
        key, goal = given.pop("metric", ours.key), given.pop("goal", None)
        metric = config.Metric(key, goal or key == ours.key and ours.goal)
        space = {key: _distribution(f"{where}.space.{key}", tried, declared.get(key))
                 for key, tried in given.pop("space").items()}
        fixed = {key: value for key, value in fixed.items() if key not in space}
        return Sweep(stage, metric, space, fixed, **given)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{where} must hold trials and space, and may hold minutes, metric, goal, "
                        f"grace and reduction: {reason}.") from None


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
