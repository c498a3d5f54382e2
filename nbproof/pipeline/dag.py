"""The stages of dvc.yaml as the machinery sees them, in the order of dvc.yaml and params.yaml."""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.scm import SCMError
from dvc.stage import PipelineStage

from nbproof.notebook import params
from nbproof.notebook.errors import UserError

T = TypeVar("T")
PLOT_KEYS = ("x", "y", "template")


@dataclass(frozen=True)
class Output:
    """One output: its place below the project; `out`, `metric` or `plot`; of a plot what dvc.yaml says of its axes."""

    path: str
    kind: str
    cached: bool
    plot: dict


@dataclass(frozen=True)
class Stage:
    """`name` is DVC's (`train@cnn`), `short` what people say (`cnn`); `notebook` is None for an ordinary command."""

    name: str
    short: str
    notebook: str | None
    sections: tuple[str, ...]
    deps: tuple[str, ...]
    outputs: tuple[Output, ...]
    needs: frozenset[str]


class Unreadable(UserError):
    """DVC cannot read dvc.yaml or dvc.lock."""


def patiently(call: Callable[[], T]) -> T:
    """`call()`, again for a second where DVC cannot read its files: DVC writes dvc.lock in place, so a stage that ends
    at this moment leaves it half written for an instant."""
    for _ in range(10):
        try:
            return call()
        except Unreadable:
            time.sleep(0.1)
    return call()


@contextlib.contextmanager
def opened(root: Path) -> Iterator[Repo]:
    """DVC's view of the project at `root`; whatever DVC or the machine refuses becomes one sentence."""
    if (root / "params.yaml").exists():
        params.read()  # DVC does not say what is wrong with it in each case
    try:
        with Repo(str(root)) as repo:
            yield repo
    except LockError:
        raise UserError("Another DVC command is at work in this folder: wait for it to end, then run again.") from None
    except SCMError:
        raise UserError("DVC needs a git repository, and this folder is in none (a ZIP download, say): git init makes "
                      "one, then run again.") from None
    except DvcException as error:
        said = " ".join(str(error).split())
        raise Unreadable(f"DVC cannot read the pipeline: {said}.{_way_out(root, said)}") from None
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"DVC cannot keep its notes ({error}): make room on the disk or look at the folder's rights, "
                      "then run again.") from None


def _way_out(root: Path, error: str) -> str:
    """What to do where DVC cannot read dvc.lock: after a merge, or with a part of it lost."""
    if "dvc.lock" not in error:
        return ""
    if "\n<<<<<<< " in "\n" + (root / "dvc.lock").read_text(encoding="utf-8", errors="replace"):
        return (" It has the marks of a merge conflict: git checkout --ours dvc.lock (or --theirs) takes one side "
                "whole, then nbproof run brings it up to date.")
    return " git checkout dvc.lock brings the committed one back; without a dvc.lock, nbproof run makes it anew."


def read(repo: Repo) -> dict[str, Stage]:
    """Every stage of the project by its name."""
    named = [stage for stage in repo.index.stages if isinstance(stage, PipelineStage)]  # not files of `dvc add`
    makers = [(out.def_path, stage.name) for stage in named for out in stage.outs]
    return {stage.name: _stage(stage, makers) for stage in named}


def dvc_stage(repo: Repo, name: str) -> PipelineStage:
    """DVC's own object of the stage `name`, with what dvc.lock records of it."""
    return next(stage for stage in repo.index.stages if getattr(stage, "name", None) == name)


def digests(stage: PipelineStage) -> dict[str, object]:
    """What a stage depends on, now: for each file or folder its MD5 sum, for params.yaml the values; None if gone."""
    return {dep.def_path: dep.get_hash().value if dep.exists else None for dep in stage.deps}


def _stage(stage: PipelineStage, makers: list[tuple[str, str]]) -> Stage:
    """`makers` are all outputs, each with the stage that makes it. (DVC's graph of them takes half a second.)"""
    deps = [dep for dep in stage.deps if hasattr(dep, "def_path")]
    files = [dep.def_path for dep in deps if not hasattr(dep, "params")]
    sections = [name for dep in deps if hasattr(dep, "params") and dep.def_path == "params.yaml" for name in dep.params]
    notebooks = [path for path in files if path.endswith(".ipynb")]
    command = stage.cmd if isinstance(stage.cmd, str) else ""
    runs_notebook = command.split()[-2:] == ["nbproof", "stage"]
    if runs_notebook and len(notebooks) != 1:
        raise UserError(f"dvc.yaml: the stage {stage.name} runs a notebook, so it must list exactly one .ipynb among its "
                      f"deps, found {', '.join(notebooks) or 'none'}.")
    notebook = notebooks[0] if runs_notebook else None
    short = Path(notebook).stem if notebook else stage.name.rpartition("@")[2]
    needs = frozenset(maker for path, maker in makers if any(_overlap(path, file) for file in files))
    return Stage(stage.name, short, notebook, tuple(sections), tuple(files), tuple(map(_output, stage.outs)), needs)


def _overlap(one: str, other: str) -> bool:
    """Whether two paths are one, or one lies in the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _output(out) -> Output:
    kind = "metric" if out.metric else "plot" if out.plot else "out"
    plot = {key: out.plot[key] for key in PLOT_KEYS if key in out.plot} if isinstance(out.plot, dict) else {}
    return Output(out.def_path, kind, out.use_cache, plot)


def check_current(repo: Repo, short: str | None, itself: bool = True) -> None:
    """UserError where the stage `short` (if `itself`), or one that it reads from, directly or not, has to run first."""
    found = read(repo)
    names = [name for name, stage in found.items() if stage.short == short]
    changed = {*found} & {*repo.status(names, with_deps=True)} - {*(() if itself else names)} if names else ()
    if changed:
        listed = ", ".join(found[name].short for name in found if name in changed)
        raise UserError(f"{listed} must run first, because files or parameters have changed: nbproof run.")


def is_model(stage: Stage) -> bool:
    """Whether a stage trains a model: its notebook writes metrics/NAME.json and models/NAME."""
    paths = {out.path for out in stage.outputs}
    return bool(stage.notebook) and {f"metrics/{stage.short}.json", f"models/{stage.short}"} <= paths
