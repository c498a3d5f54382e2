"""Makes the notebook and the parameters of a new model from those of another one."""

import re
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import from_yaml, root, write_whole
from nbproof.notebook.params import section
from nbproof.pipeline import config, dag
from nbproof.runner import source
from nbproof.workspace.entry import Yaml


def new_model(name: str, like: str = "") -> int:
    """Make the model `name` from `like` (default: the last one); it runs as it is. Return 0."""
    with dag.opened(root()) as repo:
        stages = list(dag.read(repo).values())
    models = _models(stages)
    if (like := like or next(reversed(models), "")) not in models:
        raise UserError(f"There is no model {like!r} to start from; a foreach over a section of "
                        f"params.yaml makes {', '.join(models) or 'none'}.")
    _check_free(name, stages)
    old, group = models[like]
    params = Yaml("params.yaml")
    params.set(f"{group}.{name}", vars(section(f"{group}.{like}")))
    graph = root() / "dvc.yaml"
    write_whole(graph, listed(graph.read_text(encoding="utf-8"), like, name))
    write_whole(old.with_stem(name), _notebook(old, group, like, name))
    params.write()
    print(f"notebooks/{name}.ipynb and {group}.{name} in params.yaml are made from {like}: "
          "change the model and its story, then nbproof run.")
    return 0


def listed(text: str, like: str, name: str) -> str:
    """Return dvc.yaml's `text` with outputs of the model `name` wherever those of `like` stand as
    lines of a list: a comparison may depend on each model's outputs."""
    item = re.compile(rf"(\s*- models/){like}(\.\w+)?(\s*)")
    new = rf"\g<1>{name}\g<2>\g<3>"
    return "".join(line + (item.sub(new, line) if item.fullmatch(line) else "")
                   for line in text.splitlines(keepends=True))


def _models(stages: list[dag.Stage]) -> dict[str, tuple[Path, str]]:
    """Return notebook and section of each model NAME that a `foreach: ${SECTION}` makes."""
    written = from_yaml((root() / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    models = {}
    for stage in stages:
        group, _, name = stage.name.partition("@")
        key = str(written[group].get("foreach")).strip("${}")
        if stage.notebook and f"{key}.{name}" in stage.sections:
            models[name] = root() / stage.notebook, key
    return models


def _check_free(name: str, stages: list[dag.Stage]) -> None:
    """Raise UserError where `name` cannot be a model's, or stands for something already."""
    if not config.NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot name a model: small letters, digits, _; a letter first.")
    taken = [*(root() / "notebooks").glob("*.ipynb"), Path("index.html"), Path("review.html"),
             *(Path(path) for stage in stages for path in stage.outputs)]
    for path in taken:
        if path.stem == name:
            raise UserError(f"The name {name} is taken by {path.name}: give another one.")


def _notebook(old: Path, group: str, like: str, name: str) -> str:
    """Return the notebook `old` with the model's name replaced, and a story to be written."""
    content = source.strip(source.read(old))
    for cell in content["cells"]:
        cell["id"] = re.sub(rf"\b{like}\b", name, cell["id"])
        if cell["cell_type"] == "code":
            cell["source"] = renamed(source.code(cell), group, like, name)
    story = (f"# {name}\n\n> What should it do better than {like}?\n\n**Hypothesis.** To be "
             "written: what is new in this model, and what it should change, with a number. So "
             f"far it is the model of `{old.name}`.")
    if content["cells"][0]["cell_type"] == "markdown":
        content["cells"][0]["source"] = story
    return source.text(content)


def renamed(code: str, group: str, like: str, name: str) -> str:
    """Return a cell's `code` with the model's name replaced where it names the model.

    That is a whole string ("cnn", but not the value of an option: kernel="linear"), its section
    ("models.cnn"), and the paths of its files (models/cnn, metrics/cnn.json).
    """
    quote = """["']"""
    before = rf"(?<!=){quote}|(?<=\bname=){quote}|{quote}{group}\.|(?:models|metrics|reports)/"
    return re.sub(rf"({before}){like}(?=[\"'/.])", rf"\g<1>{name}", code)
