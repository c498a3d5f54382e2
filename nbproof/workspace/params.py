"""Takes the parameters of an MLflow run into params.yaml: shown first, with all else as it is."""

import ast
import contextlib
import json
import os
import re

import typer

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root, write_whole
from nbproof.notebook.params import section
from nbproof.pipeline import dag
from nbproof.runner import schema, source
from nbproof.workspace.entry import Yaml

# A line of the parameters cell: name, type, value (a text may hold a #), comment.
LINE = re.compile(r"""(?m)^(\w+)(:[^=\n]+=\s*)("[^"\n]*"|'[^'\n]*'|[^#\n]*?)(\s*(?:#.*)?)$""")


def adopt(run: str, yes: bool, model: str = "") -> int:
    """Take a run's parameters into params.yaml after a yes; return 1 if the answer was no.

    `run` is its id, `last` for the newest finished exploration, or `best` for the best trial of
    the newest sweep (of `model` if it is named).
    """
    recorded = _find(_best_of_sweep(model) if run == "best" else run)
    run_id, logged = recorded.info.run_id, recorded.data.params
    name = recorded.data.tags.get("notebook")
    with dag.opened(root()) as repo:
        notebooks = {stage.short: stage.notebook for stage in dag.read(repo).values()}
    if not (path := notebooks.get(name)):
        raise UserError(f"Run {run_id} is one of {name}, and dvc.yaml has no such notebook.")
    content = source.strip(source.read(root() / path))
    before, explored = source.text(content), _restore(content, path)
    declared = schema.declared_in(content["cells"], path)
    if unknown := [key for key in logged if key not in declared]:
        raise UserError(f"Run {run_id} has {', '.join(unknown)}, which {path} does not declare.")
    if run == "last" and (other := [key for key in explored if explored[key] != logged.get(key)]):
        raise UserError(f"{path} has another {', '.join(other)} than its newest finished run: run "
                        f"it to its end, or name the run that you mean (nbproof adopt {run_id}).")
    file = Yaml("params.yaml")
    for key in (key for key in logged if declared[key].section):
        file.set(declared[key].key, _typed(declared[key], logged[key]))
    file.show()
    if file.text() != file.before and not (yes or typer.confirm("Write params.yaml?")):
        return 1
    file.write()
    print(f"params.yaml has the values of run {run_id}: nbproof run trains {name} with them.")
    if (after := source.text(content)) != before:
        write_whole(root() / path, after)
        print(f"{path} reads params.yaml again: where it is open, reload it from disk.")
    return 0


def _find(run: str):
    """Return MLflow's run with the id `run`; for `last` the newest finished exploration here."""
    from mlflow.exceptions import MlflowException

    local = tracking.client(tracking.local_address())
    if run == "last":
        finished = "attributes.status = 'FINISHED'"
        if runs := local.search_runs([tracking.experiment(local)], finished, max_results=1):
            return runs[0]
        raise UserError("There is no run to adopt yet: run a notebook in JupyterLab to its end.")
    for client in (local, tracking.client()):
        with contextlib.suppress(MlflowException):
            return client.get_run(run)
    raise UserError(f"MLflow has no run {run!r}, here or on its server: nbproof ui shows the ids.")


def _best_of_sweep(model: str) -> str:
    """Return the id of the best run of the newest finished sweep (of `model` if it is named)."""
    files = sorted((root() / "scratch/sweeps").glob("*/best.json"), key=os.path.getmtime)
    notes = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    run_ids = [note["run_id"] for note in notes if model in ("", note["model"])]
    if not run_ids:
        raise UserError(f"There is no finished sweep {f'of {model} ' if model else ''}here.")
    return run_ids[-1]


def _restore(content: dict, path: str) -> dict[str, str]:
    """Let the parameters cell of a notebook's `content` read params.yaml again, in place.

    `lr: float = 0.1  # peak` becomes `lr: float = P.lr  # peak`. Return the values that stood
    there by name, as MLflow logs them.
    """
    codes = [source.code(cell) for cell in content["cells"] if cell["cell_type"] == "code"]
    variables, explored = schema.sections_of(codes), {}

    def restored(line: re.Match) -> str:
        name, kind, value, comment = line.groups()
        holders = [f"{variable}.{name}" for variable, key in variables.items()
                   if hasattr(section(key), name)]
        if not holders or value in holders:  # without a holder it has a default of its own
            return line[0]
        if len(holders) > 1:
            raise UserError(f"{path}: {len(holders)} of its sections of params.yaml have {name}: "
                            f"write its line as it was, such as `{name}{kind}P.{name}`.")
        with contextlib.suppress(ValueError, SyntaxError):  # it may be computed
            explored[name] = str(ast.literal_eval(value))
        return f"{name}{kind}{holders[0]}{comment}"

    for cell in filter(schema.is_tagged, content["cells"]):
        cell["source"] = LINE.sub(restored, source.code(cell))
    return explored


def _typed(parameter: schema.Parameter, text: str) -> object:
    """Return a parameter's value, which MLflow logs as text, with the type that is declared."""
    with contextlib.suppress(ValueError, SyntaxError):  # raised for what is a text
        if parameter.accepts(value := ast.literal_eval(text)):
            return value
    if not parameter.accepts(text):
        raise UserError(f"{parameter.key} must be {parameter.expected}; the run has {text!r}.")
    return text
