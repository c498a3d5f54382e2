"""Parameter values, read from params.yaml exactly as DVC reads them (YAML 1.2: `1e-3` is a number)."""

from types import SimpleNamespace

from ruamel.yaml import YAML

from digits.paths import ROOT


def section(name: str) -> SimpleNamespace:
    """The values of one section, `"data"` or `"models.cnn"`, as attributes; KeyError names what is missing."""
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for key in name.split("."):
        if not isinstance(values, dict) or key not in values:
            raise KeyError(f"params.yaml has no section {name}")
        values = values[key]
    return SimpleNamespace(**values)


def chosen(parameters: SimpleNamespace, namespace: dict) -> dict:
    """What the notebook really runs with: the section's names with the values they now have in `namespace`."""
    return {name: namespace[name] for name in vars(parameters)}
