"""Makes the notebook and the parameters of a new model from those of another one."""

import re
from functools import reduce
from operator import getitem
from pathlib import Path, PurePosixPath

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import from_yaml, root, write_whole
from nbproof.notebook.params import read
from nbproof.pipeline import config, dag
from nbproof.runner import source
from nbproof.workspace.params import with_values


def new_model(name: str, like: str = "") -> int:
    """Make the model `name` from `like` (default: the last one); it runs as it is. Return 0."""
    with dag.opened(root()) as repo:
        stages = list(dag.read(repo).values())
    models = _models(stages)
    if (like := like or next(reversed(models), "")) not in models:
        raise UserError(f"There is no model {like!r} to start from; a foreach over a section of "
                        f"params.yaml makes {', '.join(models) or 'none'}.")
    _check_free(name, stages)
    old, section = models[like]
    values = reduce(getitem, [*section.split("."), like], read())
    params = root() / "params.yaml"
    text = with_values(params.read_text(encoding="utf-8"), {f"{section}.{name}": values})
    write_whole(old.with_stem(name), _notebook(old, section, like, name))
    write_whole(params, text)
    print(f"notebooks/{name}.ipynb and {section}.{name} in params.yaml are made from {like}: "
          "change the model and its story, then nbproof run.")
    return 0


def _models(stages: list[dag.Stage]) -> dict[str, tuple[Path, str]]:
    """Return notebook and section of each model NAME that a `foreach: ${SECTION}` makes."""
    written = from_yaml((root() / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    models = {}
    for stage in stages:
        group, _, name = stage.name.partition("@")
        section = str(written[group].get("foreach")).strip("${}")
        if stage.short == name and stage.notebook and f"{section}.{name}" in stage.sections:
            models[name] = root() / stage.notebook, section
    return models


def _check_free(name: str, stages: list[dag.Stage]) -> None:
    """Raise UserError where `name` cannot be a model's, or stands for something already."""
    if not config.NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot name a model: small letters, digits, _; a letter first.")
    taken = {"index": "reports/index.html", "changes": "reports/changes.html"}
    taken |= {PurePosixPath(out.path).stem: out.path for stage in stages for out in stage.outputs}
    taken |= {path.stem: path.name for path in (root() / "notebooks").glob("*.ipynb")}
    if name in taken:
        raise UserError(f"The name {name} is taken by {taken[name]}: give the model another one.")


def _notebook(old: Path, section: str, like: str, name: str) -> str:
    """Return the notebook `old` with the model's name replaced, and a story to be written."""
    content = source.strip(source.read(old))
    for cell in content["cells"]:
        cell["id"] = re.sub(rf"\b{like}\b", name, cell["id"])
        if cell["cell_type"] == "code":
            cell["source"] = renamed(source.code(cell), section, like, name)
    story = {"cell_type": "markdown", "id": f"{name}-story", "metadata": {}, "source": (
        f"# {name}\n\n> What should it do better than {like}?\n\n**Hypothesis.** To be written: "
        "what is new in this model, and what it should change, with a number. So far it is the "
        f"model of `{old.name}`.")}
    has_story = content["cells"][0]["cell_type"] == "markdown"
    content["cells"][: 1 if has_story else 0] = [story]
    return source.text(content)


def renamed(code: str, section: str, like: str, name: str) -> str:
    """Return a cell's `code` with the model's name replaced where it names the model.

    That is a whole string ("cnn", but not the value of an option: kernel="linear"), its section
    ("models.cnn"), and the paths of its files (models/cnn, metrics/cnn.json).
    """
    quote = """["']"""
    before = rf"(?<!=){quote}|(?<=\bname=){quote}|{quote}{section}\.|(?:models|metrics|reports)/"
    return re.sub(rf"({before}){like}(?=[\"'/.])", rf"\g<1>{name}", code)
