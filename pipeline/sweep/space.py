"""The `sweep:` section of params.yaml, checked before anything starts."""

import hashlib
import json
from dataclasses import dataclass

from pipeline import ROOT, Refused
from pipeline.stage import parameters, source

KNOWN = {"trials": int, "minutes": (int, float), "metric": str, "grace": int, "reduction": int, "space": dict}


@dataclass(frozen=True)
class Sweep:
    """What to try for one model: `space` maps a parameter to its choices (a list) or its range {low, high, log}; the rest is fixed."""

    model: str
    trials: int
    minutes: float
    metric: str
    grace: int
    reduction: int
    space: dict
    fixed: dict

    @property
    def most_epochs(self) -> int:
        """The longest training of the space."""
        tried = self.space.get("epochs", [self.fixed.get("epochs", 1)])
        return max(tried) if isinstance(tried, list) else tried["high"]

    @property
    def digest(self) -> str:
        """Changes with the space, the fixed values, the notebooks' code and the data: another digest is another sweep."""
        notebooks = ROOT / "notebooks"
        code = [source.stripped((notebooks / f"{self.model}.ipynb").read_text(encoding="utf-8"))]
        code += [path.read_text(encoding="utf-8") for path in sorted((notebooks / "digits").glob("*.py"))]
        data = ROOT / "data" / "train.safetensors"
        known = json.dumps([self.space, self.fixed, self.metric, self.grace, self.reduction, self.trials], sort_keys=True)
        whole = hashlib.sha256("\0".join([known, *code]).encode())
        whole.update(data.read_bytes() if data.exists() else b"")
        return whole.hexdigest()[:12]


def read(model: str) -> Sweep:
    """The sweep of `model`; Refused names file, key, what was expected and what was found."""
    values = parameters.read(ROOT / "params.yaml")
    section = values.get("sweep")
    if not isinstance(section, dict) or model not in section:
        there = ", ".join(section) if isinstance(section, dict) and section else "none"
        raise Refused(f"params.yaml: sweep.{model} is missing: say there what to try; there are {there}.")
    notebook, fixed = parameters.checked(model)
    declared = parameters.definitions(notebook)
    given = section[model]
    _check_keys(model, given)
    for name, tried in given["space"].items():
        _check_tried(f"sweep.{model}.space.{name}", tried, declared.get(name), notebook.name)
    others = {name: value for name, value in fixed.items() if name not in given["space"]}
    return Sweep(
        model, given["trials"], float(given.get("minutes", 60)), given.get("metric", "validation_accuracy"), given.get("grace", 1),
        given.get("reduction", 3), given["space"], others,
    )


def _check_keys(model: str, given: object) -> None:
    if not isinstance(given, dict):
        raise Refused(f"params.yaml: sweep.{model} must hold {', '.join(KNOWN)}, found {given!r}.")
    for key, value in given.items():
        if key not in KNOWN:
            raise Refused(f"params.yaml: sweep.{model}.{key} is unknown; it knows {', '.join(KNOWN)}.")
        if not isinstance(value, KNOWN[key]) or isinstance(value, bool) or (not isinstance(value, str | dict) and value <= 0):
            expected = {"space": "a mapping", "metric": "a name"}.get(key, "a positive number")
            raise Refused(f"params.yaml: sweep.{model}.{key} must be {expected}, found {value!r}.")
    for key in ("trials", "space"):
        if not given.get(key):
            raise Refused(f"params.yaml: sweep.{model}.{key} is missing.")


def _check_tried(key: str, tried: object, parameter: parameters.Parameter | None, notebook: str) -> None:
    if parameter is None:
        raise Refused(f"params.yaml: {key} is unknown; notebooks/{notebook} does not declare it.")
    expected = f"{parameter.type}{' in ' + parameter.allowed if parameter.allowed else ''}"
    if isinstance(tried, list) and tried:
        wrong = [value for value in tried if not parameter.accepts(value)]
        if wrong:
            raise Refused(f"params.yaml: {key} must be {expected}, found {wrong[0]!r}.")
        return
    right = isinstance(tried, dict) and {"low", "high"} <= set(tried) <= {"low", "high", "log"} and parameter.type in ("int", "float")
    if not right or not isinstance(tried.get("log", False), bool):
        raise Refused(f"params.yaml: {key} must be a list of choices or a range such as {{low: 0.001, high: 0.1, log: true}}, found {tried!r}.")
    for end in ("low", "high"):
        if not parameter.accepts(tried[end]):
            raise Refused(f"params.yaml: {key}.{end} must be {expected}, found {tried[end]!r}.")
    if tried["low"] >= tried["high"] or (tried.get("log") and tried["low"] <= 0):
        raise Refused(f"params.yaml: {key} must go from a lower to a higher number{', above 0 for log' if tried.get('log') else ''}, found {tried!r}.")


def check_all() -> None:
    """Check every sweep of params.yaml; Refused at the first that is wrong. That of a model which was removed may stay."""
    values = parameters.read(ROOT / "params.yaml")
    section = values.get("sweep")
    if section is not None and not isinstance(section, dict):
        raise Refused(f"params.yaml: sweep must hold models with what to try, found {section!r}.")
    for model in section or {}:
        if model in parameters.models(values):
            read(model)


def for_tune(sweep: Sweep) -> dict:
    """The space as Ray Tune has it."""
    from ray import tune

    declared = parameters.definitions(ROOT / "notebooks" / f"{sweep.model}.ipynb")

    def domain(name: str, tried):
        if isinstance(tried, list):
            return tune.choice(tried)
        whole = declared[name].type == "int"
        if tried.get("log"):
            return tune.lograndint(tried["low"], tried["high"] + 1) if whole else tune.loguniform(tried["low"], tried["high"])
        return tune.randint(tried["low"], tried["high"] + 1) if whole else tune.uniform(tried["low"], tried["high"])

    return {name: domain(name, tried) for name, tried in sweep.space.items()}
