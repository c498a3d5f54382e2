"""`nbproof add`: a notebook becomes a stage, as it is; `nbproof deps`: what a stage leaves out."""

import json
import re
from pathlib import Path

import typer
from ruamel.yaml.comments import CommentedMap

from nbproof.notebook.errors import UserError, meant
from nbproof.notebook.files import root, write_whole
from nbproof.pipeline import dag, deps, observation
from nbproof.pipeline.dag import Stage
from nbproof.pipeline.stage import cell_timeout, print_event
from nbproof.runner import reaper, schema, source
from nbproof.runner.execute import Failure, execute_notebook
from nbproof.workspace import requirements
from nbproof.workspace.entry import Yaml, fill, name_of, with_lines

MISSING = re.compile(r"No module named '([\w.]+)'")


def add(notebook: Path, name: str, yes: bool) -> int:
    """Execute `notebook` once and write its stage, which has what it read and wrote, after a yes.

    Return 1 if the answer was no. A stage that is there already is brought up to date.
    """
    path = project_path(notebook)
    source.check_kernel(source.read(root() / path), path)
    with dag.opened(root()) as repo:
        stages = dag.read(repo)
    stage = stage_of(path, name, stages)
    print(f"{path} runs once, as it is, in its own folder; what it opens is observed.")
    read, written = watch(stage, stages)
    values, pipeline = Yaml("params.yaml"), Yaml("dvc.yaml")
    sections = {*schema.sections_read(root() / path), *set_parameters(values, root() / path)}
    entry = pipeline.section("stages").setdefault(stage.name, CommentedMap())
    fill(entry, path, sorted(sections), read, written)
    ends = deps.changed_by_git([each for each in read if not made(each, stages)])
    values.show()
    pipeline.show()
    for each in ends:
        print(f".gitattributes: {deps.attribute(each)}, for git would change its line ends")
    try:
        if not (yes or typer.confirm("Write this?", default=True)):
            return 1
    except typer.Abort:  # there is no terminal
        raise UserError("Nothing is written: --yes writes it without a question.") from None
    values.write()
    pipeline.write()
    # What the notebook has just written would be committed with the stage, and DVC keeps it.
    kept = [f"/{name_of(line)}" for line in entry.get("outs", []) if isinstance(line, str)]
    for file, lines in ((".gitattributes", map(deps.attribute, ends)), (".gitignore", kept)):
        write_whole(root() / file, with_lines(root() / file, lines))
    if requirements.refresh(root()):
        print("requirements/results.txt has the versions of the packages that it imports.")
    print(f"{stage.name} is a stage: nbproof run makes its results.")
    return 0


def project_path(notebook: Path) -> str:
    """Return the path of a notebook below the project; UserError where there is none."""
    path = Path.cwd().joinpath(notebook).resolve()
    if not path.is_relative_to(root()):
        raise UserError(f"{notebook} is not in this project ({root()}): copy it there first.")
    if path.suffix != ".ipynb" or not path.is_file():
        there = [other.name for other in path.parent.glob("*.ipynb")]
        raise UserError(f"{notebook} is no notebook here.{meant(path.name, there)}")
    return path.relative_to(root()).as_posix()


def stage_of(path: str, name: str, stages: dict[str, Stage]) -> Stage:
    """Return the stage that runs the notebook `path`, or a new one; UserError for a taken name."""
    own = [stage for stage in stages.values() if stage.notebook == path]
    if any("@" in stage.name for stage in own):
        raise UserError(f"dvc.yaml: {own[0].name} comes from a foreach or a matrix: edit its lists "
                        "by hand; nbproof deps shows what they lack.")
    name = own[0].name if own else name or schema.section_of(path)
    for stage in stages.values():
        if stage.notebook != path and (stage.name == name or stage.short == Path(path).stem):
            raise UserError(f"{stage.name} is a stage of {stage.notebook or 'a command'} already: "
                            "rename this notebook, or give it a name of its own (--name).")
    return own[0] if own else Stage(name, Path(path).stem, path, (), (path,), (), frozenset())


def watch(stage: Stage, stages: dict[str, Stage]) -> tuple[list[str], list[str]]:
    """Execute the notebook of `stage` once; return the project's files it reads and writes."""
    notebook, on_event = root() / stage.notebook, lambda event: print_event(stage.short, event)
    values = schema.values_of(notebook, stage.values)
    with (reaper.session() as session,
          observation.Observation(stage, stages.values(), enforce=False) as observed):
        _, failure = execute_notebook(
            notebook, values, cell_timeout(), root(), observed.on_event(on_event),
            {reaper.MARK: session.mark(stage.name)}, session.folder)
    observed.finish(on_event)
    if failure:
        raise UserError(f"{stage.notebook} failed at {failure}.{hint(failure, notebook)}")
    last = json.loads(observation.record_of(stage.short).read_text(encoding="utf-8"))
    both = sorted({*last["read"]} & {*last["written"]})
    if both:
        raise UserError(f"{stage.notebook} reads {both[0]} and writes it again, so each run would "
                        "have another input: let it write another file.")
    return last["read"], last["written"]


def hint(failure: Failure, notebook: Path) -> str:
    """Return what to do about a failure where the reason does not say it."""
    missing = MISSING.search(failure.reason)
    if missing:
        name = missing[1].partition(".")[0]
        near = [path for path in root().rglob(f"{name}.py") if ".venv" not in path.parts]
        if near:
            return (f" {near[0].relative_to(root()).as_posix()} is not in the notebook's folder, "
                    "from which a notebook imports.")
        return f" Install {requirements.package_of(name)} (pip install), then add it again."
    if failure.error == "FileNotFoundError":
        return f" A notebook works in its own folder, {schema.shown(notebook.parent)}."
    return ""


def set_parameters(file: Yaml, notebook: Path) -> set[str]:
    """Give params.yaml the values of a papermill cell that it lacks; return their section."""
    own = {name: parameter for name, parameter in schema.declared(notebook).items()
           if parameter.default is not ... and parameter.section}
    sections = {parameter.section for parameter in own.values()}
    for name, parameter in own.items():
        file.section(parameter.section).setdefault(name, parameter.default)
    for section in sections:
        for name in file.content[section].keys() - own.keys():
            del file.content[section][name]
    return sections


def made(path: str, stages: dict[str, Stage]) -> bool:
    return any(observation.holds(stage.outputs, path) for stage in stages.values())


def check_deps(name: str, fix: bool) -> int:
    """Print what dvc.yaml does not list of what the last runs read and wrote, or (`fix`) add it."""
    with dag.opened(root()) as repo:
        stages = [stage for stage in dag.read(repo).values() if stage.notebook]
    if name:
        stages = [stage for stage in stages if name in (stage.name, stage.short)]
    lacking = [(stage, unlisted) for stage in stages
               if any(unlisted := observation.unlisted(stage))]
    for stage, lists in lacking:
        for key, paths in zip(("deps", "outs"), lists):
            for path in paths:
                print(f"{stage.name}: {key}: `- {path}`")
    if not lacking:
        print("dvc.yaml lists all that the stages read and write.")
    if not fix:
        return 1 if lacking else 0
    for stage, (read, written) in lacking:
        pipeline = Yaml("dvc.yaml")
        entry = pipeline.content["stages"].get(stage.name)
        if entry is None:
            raise UserError(f"dvc.yaml: {stage.name} comes from a foreach or a matrix: write the "
                            "lines above into it by hand.")
        sections = schema.sections_read(root() / stage.notebook)
        old = [path for path in stage.outputs if path != f"reports/{stage.short}.ipynb"]
        fill(entry, stage.notebook, sections, [*stage.deps, *read], [*old, *written])
        pipeline.write()
    return 0
