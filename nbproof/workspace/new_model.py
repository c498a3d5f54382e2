"""Makes the notebook and the parameters of a new model from those of another one."""

import re
from copy import deepcopy
from functools import reduce
from operator import getitem
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root, write_whole
from nbproof.pipeline import config, dag
from nbproof.runner import source
from nbproof.workspace.entry import Yaml


def new_model(name: str, like: str = "") -> int:
    """Make the model `name` from `like` (default: the last one); it runs as it is. Return 0."""
    with dag.opened(root()) as repo:
        stages = list(dag.read(repo).values())
    graph, params, models = root() / "dvc.yaml", Yaml("params.yaml"), _models(stages)
    if (like := like or next(reversed(models), "")) not in models:
        raise UserError(f"There is no model {like!r} to start from; a foreach over a section of "
                        f"params.yaml makes {', '.join(models) or 'none'}.")
    old, group = models[like]
    new = str(Path(old).with_stem(name))
    taken = {"index", "review", *(path.stem for path in (root() / old).parent.glob("*")),
             *(Path(path).stem for stage in stages for path in stage.outputs)}
    if not config.NAME.fullmatch(name) or name in taken:
        raise UserError(f"{name!r} cannot name a model: it is taken, or is not of small letters, "
                        "digits, _, a letter first.")
    # In front of the last one, so that comments after a section stay after it.
    section = reduce(getitem, group.split("."), params.content)
    section.insert(len(section) - 1, name, deepcopy(section[like]))
    write_whole(root() / new, _notebook(root() / old, group, like, name))
    write_whole(graph, listed(graph.read_text(encoding="utf-8"), like, name))
    write_whole(root() / "params.yaml", params.text())
    print(f"{new} and {group}.{name} in params.yaml are made from {like}: change the model and its "
          "story, then nbproof run.")
    return 0


def listed(text: str, like: str, name: str) -> str:
    """Return dvc.yaml's `text` with outputs of the model `name` wherever those of `like` stand as
    lines of a list: a comparison may depend on each model's outputs."""
    return re.sub(rf"(?m)^( *- models/){like}(\.\w+)?\n", rf"\g<0>\g<1>{name}\g<2>\n", text)


def _models(stages: list[dag.Stage]) -> dict[str, tuple[str, str]]:
    """Return notebook and section of each model NAME that a `foreach: ${SECTION}` makes."""
    models = {}
    for stage in stages:
        name = stage.name.partition("@")[2]
        for section in stage.sections:
            if stage.notebook and name and section.endswith(f".{name}"):
                models[name] = stage.notebook, section.removesuffix(f".{name}")
    return models


def _notebook(old: Path, group: str, like: str, name: str) -> str:
    """Return the notebook `old` with the model's name replaced, and a story to be written."""
    content = source.strip(source.read(old))
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = renamed(source.code(cell), group, like, name)
    if content["cells"][0]["cell_type"] == "markdown":
        content["cells"][0]["source"] = (
            f"# {name}\n\n> To be written: what should it do better than {like}?")
    return source.text(content)


def renamed(code: str, group: str, like: str, name: str) -> str:
    """Return a cell's `code` with the model's name replaced where it names the model.

    That is a whole string ("cnn", but not the value of an option: kernel="linear"), its section
    ("models.cnn"), and the paths of its files (models/cnn, metrics/cnn.json).
    """
    quote = """["']"""
    before = rf"(?<!=){quote}|(?<=\bname=){quote}|{quote}{group}\.|(?:models|metrics|reports)/"
    return re.sub(rf"({before}){like}(?=[\"'/.])", rf"\g<1>{name}", code)
