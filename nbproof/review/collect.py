"""What happened: which stages ran, what they measured, and what the base had.

All that a review shows is from here, and nothing is changed after it was made.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from dvc.lock import LockError
from dvc.utils.flatten import flatten
from nbformat import NotebookNode
from ruamel.yaml.error import YAMLError

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import from_yaml, root
from nbproof.pipeline import config, dag, verdict
from nbproof.pipeline.dag import Stage
from nbproof.pipeline.numbers import is_number, is_of_test
from nbproof.review import base
from nbproof.review.base import Sides
from nbproof.review.notebook_diff import hide, notebook, printed
from nbproof.review.plots import Plot, plot_of
from nbproof.runner.source import counted


@dataclass(frozen=True)
class StageResult:
    """One stage. `name` is the one for people, `page` that of its page (empty: a command).

    `status` is ran, unchanged, failed, not run or removed; of one that is not run `needs` are the
    stages that it waits for, else `why` is the reason.
    `is_alike`: its code, data and parameters are the base's; other bytes are another machine's.
    `failure` has the number of the cell that stopped a notebook (from 1), error, reason, source
    and what it had printed. Pairs are of the base and of here: metrics, predictions, executed
    notebooks (None where `unseen` says why)."""

    stage: str
    name: str
    page: str = ""
    status: str = "removed"
    needs: tuple[str, ...] = ()
    why: str = ""
    is_alike: bool = False
    is_committed: bool = True  # its outputs are those that the commit records
    failure: dict = field(default_factory=dict)
    metrics: tuple[dict, dict] = ({}, {})
    answers: tuple = ((), ())
    notebooks: tuple = (None, None)
    unseen: str = ""
    plots: tuple[Plot, ...] = ()

    @property
    def is_current(self) -> bool:
        return self.status in ("ran", "unchanged")


@dataclass(frozen=True)
class Facts:
    """Everything for one review. Ids of commits are full; `base` is empty where there is none.

    `outcome` is what the run printed, `pulled` why the DVC remote gave nothing, `params` maps a
    parameter to its values in the base and here; with `is_main` numbers of the test data show."""

    project: config.Project
    head: str
    base: str
    outcome: str
    pulled: str
    is_main: bool
    results: tuple[StageResult, ...] = ()
    params: dict = field(default_factory=dict)
    uncommitted: tuple[str, ...] = ()
    trouble: str = ""

    @property
    def comparison(self) -> StageResult | None:
        return next((each for each in self.results
                     if self.project.compare in (each.stage, each.name)), None)


def collect(revision: str | None = None, outcome: str = "", pulled: str | None = None,
            is_main: bool = False) -> Facts:
    """Compare the workspace with the commit where the branch left `revision` (base.base_of).

    `outcome` is what the run printed: it names the commands that failed. `pulled` is given where a
    pull has been tried before: the reason why it failed, or "". UserError where git has no such
    revision, or DVC is at work here.
    """
    fork = base.base_of(root(), revision) or ""
    known = (config.load(), base.commit(root(), "HEAD") or "", fork, outcome, pulled or "", is_main)
    try:
        with dag.opened(root()) as repo:
            stages = dag.read(repo)
            sides = Sides.of(repo, root(), fork, pulled is not None)
            results = _results(sides, stages, outcome, is_main)
            return Facts(*known, results, _params(sides), _uncommitted())
    except (UserError, YAMLError) as error:
        if isinstance(error.__context__, LockError):  # the review can be had a moment later
            raise
        return Facts(*known, trouble=str(error), uncommitted=_uncommitted())


def judge(facts: Facts) -> verdict.Verdict:
    """Judge the models: every stage but the comparison that measures the project's metric.

    What has no result here counts as it was.
    """
    sides: tuple[dict, dict] = {}, {}
    for each in facts.results:
        values = [metrics.get(facts.project.metric.key) for metrics in each.metrics]
        if each is facts.comparison or not any(map(is_number, values)):
            continue
        then, here = (verdict.Result(value if is_number(value) else "no number", answers)
                      for value, answers in zip(values, each.answers))
        if is_number(values[0]):
            sides[0][each.name] = then
        if each.status != "removed":
            sides[1][each.name] = here if each.is_current else then
    compared = facts.comparison.metrics if facts.comparison else ({}, {})
    champions = [str(metrics["champion"]) if metrics.get("champion") else None
                 for metrics in compared]
    return verdict.judge(*map(verdict.Side, sides, champions))


def _uncommitted() -> tuple[str, ...]:
    """Return the files of the project that differ from the commit."""
    prefix = len(base.git(root(), "rev-parse", "--show-prefix") or b"\n") - 1  # below git's root
    changed = base.git(root(), "status", "--porcelain", "-z", "--untracked-files=all",
                       "--no-renames", "--", ".") or b""
    return tuple(entry[3 + prefix:] for entry in changed.decode("utf-8", "replace").split("\0")
                 if entry)


def _params(sides: Sides) -> dict:
    """Return the parameters that differ, as DVC knows them, by name."""
    files = sides.repo.params.diff(sides.base, "workspace").get("diff", {}) if sides.base else {}
    return dict(sorted((key, (value.get("old"), value.get("new")))
                       for values in files.values() for key, value in values.items()))


def _results(sides: Sides, stages: dict[str, Stage], outcome: str,
             is_main: bool) -> tuple[StageResult, ...]:
    """Return a result for every stage in the order of dvc.yaml, then of those that are removed."""
    short = {name: stages[name].short if name in stages else name.rpartition("@")[2]
             for name in {**stages, **sides.old_lock}}
    often = Counter(short.values())
    names = {name: call if often[call] == 1 else name for name, call in short.items()}
    # A command has no executed copy that could name its failure: the run's last words do.
    failed = {name for line in re.findall(r"(?m)^Failed: (.+?)\.(?: |$)", outcome)
              for name in line.split(", ")}
    changed, results = dag.changed(sides.repo, stages), {}
    for name in TopologicalSorter({name: stages[name].needs for name in stages}).static_order():
        stage, needs = stages[name], [results[need] for need in sorted(stages[name].needs)]
        blocked = tuple(need.name for need in needs if not need.is_current)
        if blocked or name in changed:
            is_named = bool({name, short[name]} & failed)
            results[name] = _without(sides, stage, names[name], blocked, is_named)
        else:
            same = [path for need in needs if need.status == "unchanged"
                    for path in stages[need.stage].outputs]
            results[name] = _current(sides, stage, names[name], same, is_main)
    gone = [StageResult(name, names[name], metrics=(_metrics(sides, name)[0], {}))
            for name in names if name not in stages]
    return (*(results[name] for name in stages), *gone)


def _without(sides: Sides, stage: Stage, name: str, blocked: tuple[str, ...],
             is_named: bool) -> StageResult:
    """Return the result of a stage that failed or did not run, with the reason."""
    page = stage.short if stage.notebook else ""
    executed = notebook(base.here(sides.root, f"reports/{page}.ipynb"))
    failure = _failure(sides, stage, executed) if executed and not blocked else {}
    missing = not any((sides.root / path).exists() for path in stage.outputs)
    why = "results are not in this folder" if missing else "out of date"
    return StageResult(stage.name, name, page, "failed" if failure or is_named else "not run",
                       blocked, why, failure=failure, metrics=(_metrics(sides, stage.name)[0], {}),
                       notebooks=(None, executed if failure else None))


def _current(sides: Sides, stage: Stage, name: str, same: list[str],
             is_main: bool) -> StageResult:
    """Return the result of a stage whose results are here; `same` are inputs as in the base."""
    page, path = stage.short if stage.notebook else "", f"reports/{stage.short}.ipynb"
    old, new = sides.old_lock.get(stage.name), sides.lock[stage.name]
    is_alike = old != new and _is_alike(old, new, same)
    has_run = not sides.base or old != new and not is_alike
    metrics, pair, unseen = _metrics(sides, stage.name), (None, None), ""
    answers = tuple(map(verdict.rows, sides.both(stage.name, f"models/{stage.short}.csv")))
    if page:
        text, unseen = sides.then(stage.name, path)
        pair = tuple(map(notebook, (text, sides.now(stage.name, path))))
        for executed in () if is_main else pair:
            hide(executed, [key for key in metrics[1] if is_of_test(key)])
    return StageResult(
        stage.name, name, page, "ran" if has_run else "unchanged", is_alike=is_alike,
        is_committed=base.outs(sides.committed.get(stage.name, new)) == base.outs(new),
        metrics=metrics[:1] * 2 if is_alike else metrics, notebooks=pair,
        answers=answers[:1] * 2 if is_alike else answers,
        unseen=unseen if old and has_run else "", plots=_plots(sides, stage) if has_run else ())


def _is_alike(old: dict | None, new: dict, same: list[str]) -> bool:
    """Return whether two records of a stage have the same command, parameters and inputs.

    What a stage made that is itself alike is the same input, whatever its bytes: they are those of
    two machines.
    """
    if not old or any(old.get(key) != new.get(key) for key in ("cmd", "params")):
        return False
    deps = [{dep["path"]: dep.get("md5") for dep in entry.get("deps", [])} for entry in (old, new)]
    return deps[0].keys() == deps[1].keys() and all(
        deps[0][path] == md5 or any(f"{out}/".startswith(f"{path}/") or path.startswith(f"{out}/")
                                    for out in same) for path, md5 in deps[1].items())


def _failure(sides: Sides, stage: Stage, executed: NotebookNode) -> dict:
    """Return what the executed copy says of the cell that stopped it, if that still holds.

    After an edit of anything that the stage depends on, the failure is an old one.
    """
    noted, cells = executed.metadata.get("failure"), counted(executed.cells)
    copy = sides.root / "reports" / f"{stage.short}.ipynb"
    if not isinstance(noted, dict) or noted.get("cell") not in range(1, len(cells) + 1):
        return {}
    inputs = [sides.root / name for name in (*stage.deps, dag.PARAMS)]
    files = [file for name in inputs for file in (name, *name.rglob("*.py")) if file.is_file()]
    if any(file.stat().st_mtime_ns > copy.stat().st_mtime_ns for file in files):
        return {}
    cell = cells[noted["cell"] - 1]
    return {"error": "", "reason": "", **noted, "source": cell.source, "printed": printed(cell)}


def _metrics(sides: Sides, stage: str) -> tuple[dict, dict]:
    """Return a stage's metrics on both sides, nested ones by their sections' names."""
    names = {path for lock in (sides.lock, sides.old_lock) for path in base.outs(lock.get(stage))}
    metrics: tuple[dict, dict] = {}, {}
    listed = {out.def_path for out in sides.repo.index.metrics}  # also outside of metrics/
    for path in sorted(names):
        if path in listed or re.fullmatch(r"metrics/.+\.(json|ya?ml)", path):
            for side, text in zip(metrics, sides.both(stage, path)):
                side.update(_parsed(path, text or "{}"))
    return metrics


def _parsed(path: str, text: str) -> dict:
    """Return the metrics in a file's text as DVC names them; {} where it cannot be read."""
    try:
        content = json.loads(text) if path.endswith(".json") else from_yaml(text)
        return flatten(content) if isinstance(content, dict) else {}
    except (ValueError, YAMLError):
        return {}


def _plots(sides: Sides, stage: Stage) -> tuple[Plot, ...]:
    """Return the tables that dvc.yaml plots."""
    return tuple(plot_of(out.def_path, out.plot, *sides.both(stage.name, out.def_path))
                 for out in dag.dvc_stage(sides.repo, stage.name).outs
                 if out.plot and sides.now(stage.name, out.def_path))
