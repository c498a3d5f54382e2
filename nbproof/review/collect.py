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
from nbproof.review.plots import curve
from nbproof.runner.source import counted


@dataclass(frozen=True)
class StageResult:
    """One stage. `name` is the one for people, `page` that of its page (empty: a command).

    `status` is ran, unchanged, failed, not run or removed; of one that is not run `needs` are the
    stages that it waits for.
    `failure` has the number of the cell that stopped a notebook (from 1), error, reason, source
    and what it had printed. Pairs are of the base and of here: metrics, predictions, executed
    notebooks, None where one cannot be had."""

    stage: str
    name: str
    page: str = ""
    status: str = "removed"
    needs: tuple[str, ...] = ()
    failure: dict = field(default_factory=dict)
    metrics: tuple[dict, dict] = ({}, {})
    answers: tuple = ((), ())
    notebooks: tuple = (None, None)
    is_unseen: bool = False  # the base's notebook is recorded, and not here to be compared
    curves: tuple[dict, ...] = ()  # as plots.curve makes them

    @property
    def is_current(self) -> bool:
        return self.status in ("ran", "unchanged")


@dataclass(frozen=True)
class Facts:
    """Everything for one review. Ids of commits are full; `base` is empty where there is none.

    `outcome` is what the run printed, `pulled` why the DVC remote gave nothing, `params` maps a
    parameter to its values in the base and here; with `is_main` numbers of the test data show.
    `trouble` is why the pipeline cannot be read."""

    project: config.Project
    head: str
    base: str
    outcome: str
    pulled: str
    is_main: bool
    uncommitted: tuple[str, ...]
    results: tuple[StageResult, ...] = ()
    params: dict = field(default_factory=dict)
    trouble: str = ""

    @property
    def comparison(self) -> StageResult | None:
        return next((each for each in self.results
                     if self.project.compare in (each.stage, each.name)), None)


def collect(revision: str | None = None, outcome: str = "", pulled: str = "",
            is_main: bool = False) -> Facts:
    """Compare the workspace with the commit where the branch left `revision` (base.base_of).

    `outcome` is what the run printed: it names the commands that failed. UserError where git has no
    such revision, DVC is at work here, or the folder is in no repository.
    """
    if base.git(root(), "rev-parse", "--git-dir") is None:
        raise UserError("A review compares commits, and this folder is in no git repository: git "
                        "init makes one; commit the results there, then run again.")
    fork = base.base_of(root(), revision) or ""
    known = (config.load(), base.commit(root(), "HEAD") or "", fork, outcome, pulled, is_main,
             _uncommitted())
    try:
        with dag.opened(root()) as repo:
            stages = dag.read(repo)
            sides = Sides.of(repo, root(), fork)
            return Facts(*known, _results(sides, stages, outcome, is_main), _params(sides))
    except (UserError, YAMLError) as error:
        if isinstance(error.__context__, LockError):  # the review can be had a moment later
            raise
        return Facts(*known, trouble=str(error))


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
    before, now = map(verdict.Side, sides, champions)
    if facts.project.data in facts.params and now.champion:
        note = "The data changed, so no model is called better or worse"
        return verdict.Verdict(verdict.Side({}), now, note=note)
    return verdict.judge(before, now)


def _uncommitted() -> tuple[str, ...]:
    """Return the files of the project that differ from the commit."""
    changed = [base.git(root(), *words) or b"" for words in (
        ("diff", "--relative", "--name-only", "-z", "HEAD"),
        ("ls-files", "--others", "--exclude-standard", "-z"))]
    return tuple(sorted(b"".join(changed).decode("utf-8", "replace").split("\0")[:-1]))


def _params(sides: Sides) -> dict:
    """Return the parameters that differ, as DVC knows them, by name."""
    files = sides.repo.params.diff(sides.base, "workspace").get("diff", {}) if sides.base else {}
    return dict(sorted((key, (value.get("old"), value.get("new")))
                       for values in files.values() for key, value in values.items()))


def _results(sides: Sides, stages: dict[str, Stage], outcome: str,
             is_main: bool) -> tuple[StageResult, ...]:
    """Return a result for every stage in the order of dvc.yaml, then of those that are removed."""
    many = {name.partition("@")[0] for name, stage in stages.items() if stage.values}
    short = {name: stages[name].short if name in stages
             else name if name.partition("@")[0] in many else name.rpartition("@")[2]
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
            results[name] = _current(sides, stage, names[name], is_main)
    gone = [StageResult(name, names[name], metrics=(_metrics(sides, name)[0], {}))
            for name in names if name not in stages]
    return (*(results[name] for name in stages), *gone)


def _without(sides: Sides, stage: Stage, name: str, blocked: tuple[str, ...],
             is_named: bool) -> StageResult:
    """Return the result of a stage that failed or did not run."""
    page = stage.short if stage.notebook else ""
    executed = notebook(base.here(sides.root, f"reports/{page}.ipynb"))
    failure = _failure(sides, stage, executed) if executed and not blocked else {}
    return StageResult(stage.name, name, page, "failed" if failure or is_named else "not run",
                       blocked, failure, metrics=(_metrics(sides, stage.name)[0], {}),
                       notebooks=(None, executed if failure else None))


def _current(sides: Sides, stage: Stage, name: str, is_main: bool) -> StageResult:
    """Return the result of a stage whose results are here."""
    old = sides.old_lock.get(stage.name)
    has_run = old != sides.lock[stage.name]
    metrics = _metrics(sides, stage.name)
    answers = map(verdict.rows, sides.both(stage.name, f"models/{stage.short}.csv"))
    executed = sides.both(stage.name, f"reports/{stage.short}.ipynb") if stage.notebook else ()
    pair = tuple(map(notebook, executed)) or (None, None)
    for each in () if is_main else pair:
        hide(each, [key for key in metrics[1] if is_of_test(key)])
    return StageResult(
        stage.name, name, stage.short if stage.notebook else "", "ran" if has_run else "unchanged",
        metrics=metrics, answers=tuple(answers), notebooks=pair,
        is_unseen=bool(old and has_run and stage.notebook and not pair[0]),
        curves=_curves(sides, stage) if has_run else ())


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


def _curves(sides: Sides, stage: Stage) -> tuple[dict, ...]:
    """Return the curves that dvc.yaml plots."""
    curves = [curve(out.plot, *sides.both(stage.name, out.def_path))
              for out in dag.dvc_stage(sides.repo, stage.name).outs if out.plot]
    return tuple(filter(None, curves))
