"""`nbproof add`: a notebook becomes a stage, as it is; `nbproof deps`: what a stage leaves out."""

import re
from functools import partial
from pathlib import Path

from ruamel.yaml.comments import CommentedMap

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import dag, deps, observation
from nbproof.pipeline.dag import Stage
from nbproof.pipeline.stage import cell_timeout, print_event
from nbproof.runner import reaper, schema, source
from nbproof.runner.execute import Failure, execute_notebook
from nbproof.workspace import requirements
from nbproof.workspace.entry import Yaml, fill, name_of, propose, with_lines

MISSING = re.compile(r"No module named '(\w+)")
FOREACH = "dvc.yaml: {} comes from a foreach or a matrix: edit its lists by hand (nbproof deps)."


def add(notebook: Path, yes: bool) -> int:
    """Execute `notebook` once and write its stage, which has what it read and wrote, after a yes.

    Return 1 if the answer was no. A stage that is there already is brought up to date.
    """
    path = project_path(notebook)
    source.check_kernel(source.read(root() / path), path)
    with dag.opened(root()) as repo:
        stages = dag.read(repo)
    stage = stage_of(path, stages)
    print(f"{path} runs once, as it is, in its own folder; what it opens is observed.")
    read, written = watch(stage, stages)
    values, pipeline = Yaml("params.yaml"), Yaml("dvc.yaml")
    sections = {*schema.sections_read(root() / path), *set_parameters(values, root() / path)}
    entry = pipeline.section("stages").setdefault(stage.name, CommentedMap())
    fill(entry, path, read, written, sorted(sections))
    made = [output for other in stages.values() for output in other.outputs]
    attributes = map(deps.attribute, deps.changed_by_git(
        [name for name in read if not observation.holds(made, name)]))
    # What the notebook has just written would be committed with the stage, and DVC keeps it.
    kept = [f"/{name_of(line)}" for line in entry.get("outs", []) if isinstance(line, str)]
    files = {"params.yaml": values.text(), "dvc.yaml": pipeline.text(),
             ".gitattributes": with_lines(root() / ".gitattributes", attributes),
             ".gitignore": with_lines(root() / ".gitignore", kept)}
    if not propose(files | requirements.renewed(), yes):
        return 1
    print(f"{stage.name} is a stage: nbproof run makes its results.")
    return 0


def project_path(notebook: Path) -> str:
    """Return the path of a notebook below the project; UserError where it is elsewhere."""
    path = Path.cwd().joinpath(notebook).resolve()
    if not path.is_relative_to(root()):
        raise UserError(f"{notebook} is not in this project ({root()}): copy it there first.")
    return path.relative_to(root()).as_posix()


def stage_of(path: str, stages: dict[str, Stage]) -> Stage:
    """Return the stage that runs the notebook `path`, or a new one; UserError for a taken name."""
    name, short = schema.section_of(path), Path(path).stem
    for stage in stages.values():
        if stage.notebook == path:
            if "@" in stage.name:
                raise UserError(FOREACH.format(stage.name))
            return stage
    if taken := [stage for stage in stages.values() if stage.name == name or stage.short == short]:
        raise UserError(f"{taken[0].name} is a stage already: rename this notebook.")
    return Stage(name, short, path, (), (path,), (), frozenset())


def watch(stage: Stage, stages: dict[str, Stage]) -> tuple[list[str], list[str]]:
    """Execute the notebook of `stage` once; return the project's files it reads and writes."""
    notebook = root() / stage.notebook
    values = schema.values_of(notebook, stage.values)
    with (reaper.session() as session,
          observation.Observation(stage, stages.values(), enforce=False) as observed):
        _, failure = execute_notebook(
            notebook, values, cell_timeout(), root(),
            observed.on_event(partial(print_event, stage.short)),
            {reaper.MARK: session.mark(stage.name)}, session.folder)
    if failure:
        raise UserError(f"{stage.notebook} failed at {failure}.{hint(failure, stage.notebook)}")
    read, written = observed.inputs(), observed.outputs() | observed.changed_files()
    if both := sorted(read & written):
        raise UserError(f"{stage.notebook} reads {both[0]} and writes it again, so each run would "
                        "have another input: let it write another file.")
    return sorted(read), sorted(written)


def hint(failure: Failure, notebook: str) -> str:
    """Return what to do about a failure where the reason does not say it."""
    if missing := MISSING.search(failure.reason):
        return (f" Install {requirements.package_of(missing[1])} (pip install), then add it again; "
                "a module of yours must be in the notebook's folder.")
    if failure.error == "FileNotFoundError":
        return f" A notebook works in its own folder, {Path(notebook).parent}."
    return ""


def set_parameters(file: Yaml, notebook: Path) -> set[str]:
    """Give params.yaml the values of a papermill cell that it lacks; return their section."""
    own = {name: parameter for name, parameter in schema.declared(notebook).items()
           if parameter.default is not ... and parameter.section}
    sections = {parameter.section for parameter in own.values()}
    for section in sections:
        values = file.section(section)
        for name in values.keys() - own.keys():
            del values[name]
        for name, parameter in own.items():
            values.setdefault(name, parameter.default)
    return sections


def check_deps(name: str, fix: bool) -> int:
    """Print what dvc.yaml does not list of what the last runs read and wrote, or (`fix`) add it."""
    with dag.opened(root()) as repo:
        stages = [stage for stage in dag.read(repo).values()
                  if stage.notebook and name in ("", stage.name, stage.short)]
    lacking = [(stage, unlisted) for stage in stages
               if any(unlisted := observation.unlisted(stage))]
    for stage, lists in lacking:
        for key, paths in zip(("deps", "outs"), lists):
            print(*(f"{stage.name}: {key}: `- {path}`\n" for path in paths), sep="", end="")
    if not lacking:
        print("dvc.yaml lists all that the stages read and write.")
    if not fix:
        return 1 if lacking else 0
    pipeline = Yaml("dvc.yaml")
    for stage, (read, written) in lacking:
        if (entry := pipeline.content["stages"].get(stage.name)) is None:
            raise UserError(FOREACH.format(stage.name))
        fill(entry, stage.notebook, [*stage.deps, *read], [*stage.outputs, *written],
             schema.sections_read(root() / stage.notebook))
    propose({"dvc.yaml": pipeline.text()}, yes=True)
    return 0
