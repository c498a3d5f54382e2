"""One stage that runs a notebook: as DVC calls it (`nbproof stage`), and as a run does."""

import importlib.metadata
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError, meant
from nbproof.notebook.files import root, write_whole
from nbproof.notebook.progress import line
from nbproof.pipeline import config, dag, deps, index, observation
from nbproof.pipeline.dag import Stage
from nbproof.pipeline.numbers import number
from nbproof.runner import StageFailure, reaper, schema, secrets, source, varying
from nbproof.runner.execute import IMPORTED, Failure, execute_notebook, printable

SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh"}


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: the reason of a failure, empty where all is well; see Failure.fallback."""

    reason: str = ""
    fallback: dict = field(default_factory=dict)


def run_stage(name: str) -> int:
    """Execute the notebook of the stage `name` and make its page; return 0 if all is well."""
    from nbproof.runner import html

    with dag.opened(root()) as repo:
        stages = dag.read(repo)
        stage = find(stages, name)
        deps.check(stage)
        deps.check_sources(stages.values())
        dvc_stage = dag.dvc_stage(repo, stage.name)
        before = dag.digests(dvc_stage)
        with reaper.session(parent=caller()) as session:
            outcome = execute(stage, session, lambda event: print_event(stage.short, event),
                              stages.values())
        html.write(stage.short, (root() / stage.notebook).parent, index.pages(stages))
        reason = outcome.reason or edited(stage, before, dag.digests(dvc_stage))
    if reason:
        print(reason, file=sys.stderr)
    return 1 if reason else 0


def find(stages: dict[str, Stage], name: str) -> Stage:
    """Return the stage called `name` (`train@cnn` or `cnn`). Raise UserError if it has none."""
    for stage in stages.values():
        if stage.notebook and name in (stage.name, stage.short):
            return stage
    raise UserError(f"dvc.yaml has no stage {name!r} that runs a notebook.")


def caller() -> int:
    """Return the process id of the program that started this one, past a shell in between."""
    parent = psutil.Process().parent()
    if parent and parent.name() in SHELLS and (above := parent.parent()):
        parent = above
    return parent.pid if parent else 0


def execute(stage: Stage, session: reaper.Session, on_event: Callable[[dict], None],
            stages: Iterable[Stage] = ()) -> Outcome:
    """Execute the notebook of `stage` and write reports/NAME.ipynb; check all that it left.

    `stages` are all of the project.
    """
    started, notebook = time.monotonic(), root() / stage.notebook
    values = schema.values_of(notebook, stage.values)
    source.check_kernel(source.read(notebook), stage.notebook)
    with observation.Observation(stage, stages) as observed:
        executed, failure = execute_notebook(
            notebook, values, cell_timeout(), root(), observed.on_event(on_event),
            {reaper.MARK: session.mark(stage.name)}, session.folder)
    for command in session.end(stage.name):
        on_event({"message": "a process that a cell had started was still at work, and was ended: "
                             f"{command}"})
    reason = write_executed(stage, executed, failure, on_event)
    secret = without_secrets(stage)
    metrics = config.check_metrics(stage.short) if dag.is_model(stage) else ""
    at_cell = f"at {failure}{advice(failure)}" if failure else ""
    reason = reason or at_cell or secret or metrics
    try:
        observed.finish(on_event)
    except StageFailure as unlisted:
        reason = reason or f"because {unlisted}."
    if reason:
        return Outcome(f"{stage.short}: {stage.notebook} failed {reason}",
                       failure.fallback if failure else {})
    seconds = time.monotonic() - started
    on_event({"message": f"every cell ran, {seconds:.1f} s{reached(stage)} "
                         f"-> reports/{stage.short}.html"})
    return Outcome()


def advice(failure: Failure) -> str:
    """Return what to do where a cell could not import something; empty for other failures."""
    missing = IMPORTED.match(failure.reason)
    if not missing:
        return ""
    name = missing[1]
    files = [f"*/{name}.py", f"{name}.py", f"*/{name}/*.py"]
    if deleted := tracking.git("ls-files", "--deleted", "--", *files).split():
        return f". git checkout {deleted[0]} brings it back"
    if failure.error != "ModuleNotFoundError":  # the module is there, and has no such name
        return ""
    own = (path.stem for path in (root() / "notebooks").glob("*") if path.suffix in ("", ".py"))
    known = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions(), *own}
    if close := meant(name, sorted(known)):
        return f".{close}"
    return f". Install the package that has {name}, or write the module beside the notebook"


def reached(stage: Stage) -> str:
    """Return the metric of a model for the line that ends its stage; empty for other stages."""
    key = config.load().metric.key
    value = config.load().metrics(stage.short).get(key) if key and dag.is_model(stage) else None
    return "" if value is None else f", {key} {number(value)}"


def write_executed(stage: Stage, executed: nbformat.NotebookNode, failure: Failure | None,
                   on_event: Callable[[dict], None]) -> str:
    """Write the executed notebook without secrets; return why it fails."""
    secret = secrets.take_out(executed)
    varying.number_ids(executed)
    for warning in [] if failure else varying.found(executed)[:1]:
        on_event({"message": f"warning: {warning}"})
    try:
        text = nbformat.writes(executed) + "\n"
        write_whole(root() / "reports" / f"{stage.short}.ipynb", text)
    except OSError as error:
        first = f"{stage.short}: {stage.notebook} failed at {failure}\n" if failure else ""
        raise UserError(f"{first}{stage.short}: its executed notebook could not be written "
                        f"({error.strerror}): make room, then run again.") from None
    return f"at {secret}" if secret else ""


def without_secrets(stage: Stage) -> str:
    """Delete results that hold the value of a secret, also of a failed stage; return which."""
    held = secrets.in_files([root() / path for path in stage.outputs])
    for path, _ in held:
        path.unlink()
    shown = [f"{path.relative_to(root()).as_posix()} held the value of {name}"
             for path, name in held]
    return f"because {', '.join(shown)}, so it was not kept." if held else ""


def edited(stage: Stage, before: dict[str, object], after: dict[str, object]) -> str:
    """Return the sentence on dependencies that changed while the stage ran; empty if none did."""
    changed = sorted(path for path in before if before[path] != after[path])
    if not changed:
        return ""
    return (f"{stage.short}: {', '.join(changed)} changed while the stage was running, so its "
            "results were discarded. Run again.")


def print_event(name: str, event: dict) -> None:
    """Print an event that is for people as a line that begins with the stage's name."""
    if words := line(event):
        print(f"{name}: {printable(words)}", flush=True)


def cell_timeout() -> float:
    """Return the seconds that one cell may take: NBPROOF_CELL_TIMEOUT, or an hour."""
    given = os.environ.get("NBPROOF_CELL_TIMEOUT") or "3600"
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0  # refused below, as every other text that is no positive number
    if not 0 < seconds < math.inf:
        raise UserError("NBPROOF_CELL_TIMEOUT must be a number of seconds above 0, "
                        f"found {given!r}.")
    return seconds


def nbval(arguments: list[str]) -> int:
    """Execute the notebooks in reports/, or those named, again by nbval and compare outputs."""
    import subprocess

    from nbproof.runner import determinism

    own = {"PYTHONPATH": str(root() / "notebooks"), "NBPROOF_QUIET": "1", "PYTHONHASHSEED": "0"}
    # The project's own pytest options are of its tests: cells spread over processes would fail.
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-p", "no:cacheprovider",
               "--nbval", "--nbval-current-env"]
    paths = [] if any(Path(argument).exists() for argument in arguments) else ["reports"]
    variables = determinism.clean(dict(os.environ)) | own
    return subprocess.run([*command, *arguments, *paths], cwd=root(), env=variables).returncode
