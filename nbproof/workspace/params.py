"""Takes the parameters of an MLflow run into params.yaml: shown first, with all else as it is."""

import ast
import contextlib
import re
from functools import reduce
from operator import getitem

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.notebook.params import section
from nbproof.pipeline import dag
from nbproof.runner import schema, source
from nbproof.workspace.entry import Yaml, propose


def adopt(run: str, yes: bool) -> int:
    """Take a run's parameters into params.yaml after a yes; return 1 if the answer was no.

    `run` is its id, or `last` for the newest finished exploration.
    """
    recorded = _find(run)
    run_id, logged = recorded.info.run_id, recorded.data.params
    name = recorded.data.tags.get("notebook")
    with dag.opened(root()) as repo:
        notebooks = {stage.short: stage.notebook for stage in dag.read(repo).values()}
    if not (path := notebooks.get(name)):
        raise UserError(f"Run {run_id} is one of {name}, and dvc.yaml has no such notebook.")
    content = source.strip(source.read(root() / path))
    _restore(content["cells"])
    declared = schema.declared_in(content["cells"], path)
    if unknown := logged.keys() - declared.keys():
        raise UserError(f"Run {run_id} has {', '.join(unknown)}, which {path} does not declare.")
    file = Yaml("params.yaml")
    for key in (key for key in logged if declared[key].section):
        _set(file.content, declared[key].key, _typed(declared[key], logged[key]))
    if not propose({"params.yaml": file.text(), path: source.text(content)}, yes):
        return 1
    print(f"params.yaml has the values of run {run_id}: nbproof run trains {name} with them. "
          "Where the notebook is open, reload it from disk.")
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


def _restore(cells: list[dict]) -> None:
    """Let the parameters cell read params.yaml again, in place, where a person tried a value.

    `lr: float = 0.1  # peak` becomes `lr: float = P.lr  # peak`.
    """
    codes = [source.code(cell) for cell in cells if cell["cell_type"] == "code"]
    for cell in filter(schema.is_tagged, cells):
        cell["source"] = source.code(cell)
        for variable, key in schema.sections_of(codes).items():
            for name in vars(section(key)):
                other = rf"(?m)^({name}:[^=\n]+= )(?!\w+\.{name}\b).*?( +#.*)?$"
                cell["source"] = re.sub(other, rf"\g<1>{variable}.{name}\2", cell["source"])


def _set(content: dict, key: str, value: object) -> None:
    """Give `key` (models.cnn.lr) another value, in its own place and form."""
    *parents, name = key.split(".")
    holder = reduce(getitem, parents, content)
    if isinstance(value, list) and isinstance(holder[name], list):
        holder[name][:] = value  # it stays on one line, or on several
    elif holder[name] != value:  # the same one stays as it is written
        holder[name] = value


def _typed(parameter: schema.Parameter, text: str) -> object:
    """Return a parameter's value, which MLflow logs as text, with the type that is declared."""
    with contextlib.suppress(ValueError, SyntaxError):  # raised for what is a text
        if parameter.accepts(value := ast.literal_eval(text)):
            return value
    if not parameter.accepts(text):
        raise UserError(f"{parameter.key} must be {parameter.expected}; the run has {text!r}.")
    return text
