"""The stages of dvc.yaml, as nbproof sees them, and DVC's view of the project."""

import contextlib
import graphlib
import logging
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from pathlib import Path

from dvc.dependency import Dependency
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.scm import SCMError
from dvc.stage import PipelineStage

from nbproof.notebook import params
from nbproof.notebook.errors import UserError, meant

PARAMS = "params.yaml"
COMMAND = re.compile(r"(.*\s)?nbproof\s+stage(?P<values>(\s+\w+=\S*)*)\s*")
VALUE = re.compile(r"[\w.+-]*")
KEYS = {"cmd", "deps", "outs", "params", "metrics", "plots", "wdir", "foreach", "do", "matrix",
        "vars", "desc", "meta", "frozen"}  # of a stage in dvc.yaml
FIXES = {"rwlock": "nbproof run removes it",
         "dvc.lock": "git checkout dvc.lock brings the committed one back"}


@dataclass(frozen=True)
class Stage:
    """One stage: `name` is DVC's (`train@cnn`), `short` a person's (`cnn`); a command has no
    `notebook`; `sections` are those of params.yaml; `needs` are the stages that make its `deps`.
    `values` are those in the command of a notebook: `nbproof stage model=cnn`. Several stages may
    run such a notebook, so `short` is then DVC's name."""

    name: str
    short: str
    notebook: str | None
    sections: tuple[str, ...]
    deps: tuple[str, ...]
    outputs: tuple[str, ...]
    needs: frozenset[str]
    values: dict[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = field(default=(), compare=False)  # outputs that DVC knows as such


@contextlib.contextmanager
def opened(root: Path) -> Iterator[Repo]:
    """Open DVC's view of the project at `root`; UserError for what DVC or the machine refuses."""
    for path in (root / PARAMS, root / "dvc.yaml", root / "dvc.lock"):
        if path.exists() and "\n<<<<<<< " in "\n" + path.read_text("utf-8", errors="replace"):
            raise UserError(f"{path.name} has the marks of a merge conflict: edit it, or take one "
                            f"side (git checkout --ours {path.name}), then run again.")
    if (root / PARAMS).exists():
        params.read()  # DVC does not say what is wrong with it in each case
    if not (root / "dvc.yaml").exists():
        params.read("dvc.yaml")  # for DVC, a project without stages is one
    for name in ("dvc.progress", "dvc_data.callbacks"):  # its bars would tear a run's table
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with Repo(str(root)) as repo:
            yield repo
    except BrokenPipeError:  # whoever read what is printed has gone
        raise
    except LockError:
        raise UserError("Another DVC command is at work in this folder: wait for it to end, "
                        "then run again.") from None
    except SCMError:
        raise UserError("DVC needs a git repository, and this folder is in none (a ZIP "
                        "download, for example): git init makes one, then run again.") from None
    except DvcException as error:
        raise UserError(explained(error)) from None
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"A file cannot be read or written ({error}): make room on the disk or "
                        "look at the folder's rights, then run again.") from None


def explained(error: DvcException) -> str:
    """Return what is wrong with the pipeline's files. Raise UserError where one is no YAML.

    DVC itself shows the line and the key only on a terminal of its own.
    """
    for name in ("dvc.yaml", PARAMS):
        params.read(name)
    is_ours = str(getattr(error, "path", "")).endswith("dvc.yaml")
    for problem in error.exc.errors if is_ours and hasattr(error, "exc") else ():  # voluptuous's
        key = ".".join(map(str, problem.path))
        close = meant(str(problem.path[-1]), KEYS) if "extra keys" in problem.msg else ""
        return f"dvc.yaml: {key}: {problem.msg}.{close}"
    reason = " ".join(str(error).split()).rstrip(".")
    fix = next((f" {fix}." for word, fix in FIXES.items() if word in reason.lower()), "")
    return f"DVC cannot read the pipeline: {reason}.{fix}"


def read(repo: Repo) -> dict[str, Stage]:
    """Return every stage by its name; UserError where stages form a circle.

    DVC's own check of circles imports networkx, which takes as long as reading the project; its
    check of outputs that overlap does not.
    """
    stages = [stage for stage in repo.index.stages if isinstance(stage, PipelineStage)]
    makers = [(out.def_path, out.stage.name) for out in repo.index.outs_trie.values()
              if isinstance(out.stage, PipelineStage)]
    found = {stage.name: _stage(stage, makers) for stage in stages}
    try:
        graphlib.TopologicalSorter({name: found[name].needs for name in found}).prepare()
    except graphlib.CycleError as error:
        raise UserError(f"dvc.yaml: stages need each other's results in a circle "
                        f"({' <- '.join(error.args[1])}): take one of these deps out.") from None
    return found


def _stage(stage: PipelineStage, makers: list[tuple[str, str]]) -> Stage:
    """Return our view of DVC's `stage`; `makers` are all outputs, each with its stage's name."""
    files = tuple(dep.def_path for dep in stage.deps if not hasattr(dep, "params"))
    sections = tuple(name for dep in stage.deps if hasattr(dep, "params")
                     and dep.def_path == PARAMS for name in dep.params)
    notebook, values = None, _values(stage)
    if values is not None:
        notebooks = [path for path in files if path.endswith(".ipynb")]
        if len(notebooks) != 1:
            raise UserError(f"dvc.yaml: the stage {stage.name} runs a notebook, so it must list "
                            "exactly one .ipynb among its deps, found "
                            f"{', '.join(notebooks) or 'none'}.")
        notebook = notebooks[0]
    short = Path(notebook).stem if notebook else stage.name.rpartition("@")[2]
    if values:
        short = stage.name
    needs = frozenset(maker for path, maker in makers for dep in files
                      if f"{path}/".startswith(f"{dep}/") or f"{dep}/".startswith(f"{path}/"))
    outputs = tuple(out.def_path for out in stage.outs)
    metrics = tuple(out.def_path for out in stage.outs if out.metric)
    return Stage(stage.name, short, notebook, sections, files, outputs, needs, values or {},
                 metrics)


def _values(stage: PipelineStage) -> dict[str, str] | None:
    """Return the values in the command of a stage that runs a notebook; None if it runs none."""
    match = COMMAND.fullmatch(stage.cmd) if isinstance(stage.cmd, str) else None
    if not match:
        return None
    values = dict(word.partition("=")[::2] for word in match["values"].split())
    for name, value in values.items():
        if not VALUE.fullmatch(value):  # plain `dvc repro` gives the command to a shell
            raise UserError(f"dvc.yaml: the stage {stage.name} gives {name} the value {value!r}: "
                            "a value in a command is of letters, digits, and . _ + -.")
    return values


def dvc_stage(repo: Repo, name: str) -> PipelineStage:
    """Return DVC's own object of the stage `name`, with what dvc.lock records of it."""
    return next(stage for stage in repo.index.stages if getattr(stage, "name", None) == name)


def recorded_value(repo: Repo, key: str) -> object:
    """Return the value that dvc.lock records for the parameter `key`; None if it has none."""
    deps = (dep for stage in repo.index.stages for dep in stage.deps if hasattr(dep, "params"))
    for dep in deps:
        for section, value in (dep.hash_info.value or {}).items():
            if f"{key}.".startswith(f"{section}."):
                with contextlib.suppress(KeyError, TypeError):
                    return reduce(getitem, key.removeprefix(section).split(".")[1:], value)
    return None


def digests(stage: PipelineStage) -> dict[str, object]:
    """Return what a stage depends on now: MD5 sums by path (None if missing), values of params."""
    return {dep.def_path: dep.get_hash().value if dep.exists else None for dep in stage.deps}


def changed(repo: Repo, names: Iterable[str]) -> set[str]:
    """Return which of the stages `names` `dvc status` would list.

    `repo.status()` would parse dvc.lock again, and note each stage in a file of locks.
    """
    stages = [dvc_stage(repo, name) for name in names]
    return {stage.name for stage in stages
            if stage.is_callback or stage.always_changed or stage.cmd_changed
            or any(dep.status() for dep in stage.deps
                   if not stage.frozen and not _has_current_values(dep))
            or any(out.status() for out in stage.outs)}


def _has_current_values(dep: Dependency) -> bool:
    """Return whether dvc.lock records the values of params.yaml for a dependency on it.

    DVC would parse the file for each stage: most of the time that it takes to find no change.
    """
    if dep.def_path != PARAMS or not getattr(dep, "params", ()):
        return False
    try:
        values = {name: params.value(name) for name in dep.params}
    except (KeyError, TypeError):  # it has no such value
        return False
    return dep.hash_info.value == values


def with_downstream(names: Iterable[str], found: dict[str, Stage]) -> set[str]:
    """Return `names` and every stage that needs one of them, directly or not."""
    reached = set(names) & set(found)
    while more := {name for name in set(found) - reached if found[name].needs & reached}:
        reached |= more
    return reached


def check_current(repo: Repo, short: str | None, itself: bool = True) -> None:
    """Raise UserError where a stage that `short` needs, or (with `itself`) it, must run first."""
    found = read(repo)
    own = {name for name, stage in found.items() if stage.short == short}
    upstream = {name for name in found if with_downstream({name}, found) & own}
    stale = changed(repo, upstream if itself else upstream - own)
    if stale:
        listed = ", ".join(stage.short for name, stage in found.items() if name in stale)
        raise UserError(f"{listed} must run first, because files or parameters have changed: "
                        "nbproof run.")


def is_model(stage: Stage) -> bool:
    """Return whether a stage trains a model: it writes metrics/NAME.json and models/NAME."""
    wanted = {f"metrics/{stage.short}.json", f"models/{stage.short}"}
    return bool(stage.notebook) and wanted <= {*stage.outputs}
