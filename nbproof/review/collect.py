"""What happened: which stages ran, what they measured, and what the base had.

All that a review shows is from here, and nothing is changed after it was made.
"""

import contextlib
import json
import re
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter

from dvc.lock import LockError
from dvc.utils.flatten import flatten
from nbformat import NotebookNode
from ruamel.yaml.error import YAMLError

from nbproof.notebook import tracking
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
    """One stage. `name` is the one for people, `page` that of its page (empty: a command), `group`
    that of its notebook if it runs for many values.

    `status` is ran, unchanged, failed, not run or removed; of one that is not run `needs` are the
    stages that it waits for.
    `failure` has the number of the cell that stopped a notebook (from 1), error, reason, source
    and what it had printed. Pairs are of the base and of here: metrics, predictions, executed
    notebooks, None where one cannot be had."""

    stage: str
    name: str
    group: str = ""
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

    `outcome` is what the run printed, `params` maps a parameter to its values in the base and here;
    with `is_main` numbers of the test data show. `trouble` is why the pipeline cannot be read."""

    project: config.Project
    head: str
    base: str
    outcome: str
    is_main: bool
    uncommitted: tuple[str, ...]
    results: tuple[StageResult, ...] = ()
    params: dict = field(default_factory=dict)
    trouble: str = ""

    @property
    def comparison(self) -> StageResult | None:
        return next((each for each in self.results
                     if self.project.compare in (each.stage, each.name)), None)


def collect(revision: str | None = None, outcome: str = "", is_main: bool = False) -> Facts:
    """Compare the workspace with the commit where the branch left `revision` (base.base_of).

    `outcome` is what the run printed: it names the commands that failed. UserError where git has no
    such revision, DVC is at work here, or the folder is in no repository.
    """
    if not tracking.git("rev-parse", "--git-dir"):
        raise UserError("A review compares commits, and this folder is in no git repository: git "
                        "init makes one; commit the results there, then run again.")
    fork = base.base_of(revision)
    known = (config.load(), base.commit("HEAD"), fork, outcome, is_main, _uncommitted())
    try:
        with dag.opened(root()) as repo:
            locks = base.here("dvc.lock"), base.at(fork, "dvc.lock")
            sides = Sides(repo, fork, *(config.recorded(lock or "") for lock in locks))
            results = _results(sides, dag.read(repo), outcome, is_main)
            return Facts(*known, results, _params(sides))
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
    changed = (tracking.git("diff", "--relative", "--name-only", "-z", "HEAD")
               + tracking.git("ls-files", "--others", "--exclude-standard", "-z"))
    return tuple(sorted(changed.split("\0")[:-1]))


def _params(sides: Sides) -> dict:
    """Return the parameters that differ, as DVC knows them, by name."""
    files = sides.repo.params.diff(sides.base, "workspace").get("diff", {}) if sides.base else {}
    return dict(sorted((key, (value.get("old"), value.get("new")))
                       for values in files.values() for key, value in values.items()))


def _results(sides: Sides, stages: dict[str, Stage], outcome: str,
             is_main: bool) -> tuple[StageResult, ...]:
    """Return a result for every stage in the order of dvc.yaml, then of those that are removed."""
    # A command has no executed copy that could name its failure: the run's last words do.
    failed = {name for line in re.findall(r"(?m)^Failed: (.+?)\.(?: |$)", outcome)
              for name in line.split(", ")}
    many = {name.partition("@")[0] for name, stage in stages.items() if stage.values}
    changed, results = dag.changed(sides.repo, stages), {}
    for name in TopologicalSorter({name: stages[name].needs for name in stages}).static_order():
        stage, needs = stages[name], [results[need] for need in sorted(stages[name].needs)]
        group = name.partition("@")[0] if stage.values else ""
        start = StageResult(name, stage.short, group, stage.short if stage.notebook else "",
                            needs=tuple(need.name for need in needs if not need.is_current),
                            metrics=_metrics(sides, name))
        if start.needs or name in changed:
            results[name] = _without(stage, start, bool({name, stage.short} & failed))
        else:
            results[name] = _current(sides, stage, start, is_main)
    gone = [StageResult(name, name if group in many else name.rpartition("@")[2],
                        group if group in many else "", metrics=(_metrics(sides, name)[0], {}))
            for name in sides.old_lock if name not in stages for group in [name.partition("@")[0]]]
    return (*(results[name] for name in stages), *gone)


def _without(stage: Stage, start: StageResult, is_named: bool) -> StageResult:
    """Return the result of a stage that failed or did not run."""
    executed = None if start.needs else notebook(base.here(f"reports/{start.page}.ipynb"))
    failure = _failure(stage, executed) if executed else {}
    return replace(start, status="failed" if failure or is_named else "not run", failure=failure,
                   metrics=(start.metrics[0], {}), notebooks=(None, executed if failure else None))


def _current(sides: Sides, stage: Stage, start: StageResult, is_main: bool) -> StageResult:
    """Return the result of a stage whose results are here."""
    old = sides.old_lock.get(stage.name)
    has_run = old != sides.lock[stage.name]
    pair = (None, None)
    if stage.notebook:
        pair = tuple(map(notebook, sides.both(f"reports/{stage.short}.ipynb")))
    for each in () if is_main else pair:
        hide(each, [key for key in start.metrics[1] if is_of_test(key)])
    answers = map(verdict.rows, sides.both(f"models/{stage.short}.csv"))
    return replace(
        start, status="ran" if has_run else "unchanged", answers=tuple(answers), notebooks=pair,
        is_unseen=bool(old and has_run and stage.notebook and not pair[0]),
        curves=_curves(sides, stage) if has_run else ())


def _failure(stage: Stage, executed: NotebookNode) -> dict:
    """Return what the executed copy says of the cell that stopped it, if that still holds.

    After an edit of anything that the stage depends on, the failure is an old one.
    """
    noted = executed.metadata.get("failure")
    copy = root() / "reports" / f"{stage.short}.ipynb"
    inputs = [root() / name for name in (*stage.deps, dag.PARAMS)]
    files = [file for name in inputs for file in (name, *name.rglob("*.py")) if file.is_file()]
    if not noted or any(file.stat().st_mtime_ns > copy.stat().st_mtime_ns for file in files):
        return {}
    cell = counted(executed.cells)[noted["cell"] - 1]
    return {**noted, "source": cell.source, "printed": printed(cell)}


def _metrics(sides: Sides, stage: str) -> tuple[dict, dict]:
    """Return a stage's metrics on both sides, nested ones by their sections' names."""
    metrics: tuple[dict, dict] = {}, {}
    listed = {out.def_path for out in sides.repo.index.metrics}  # also outside of metrics/
    for path in base.outs(*(lock.get(stage, {}) for lock in (sides.old_lock, sides.lock))):
        if path not in listed and not re.fullmatch(r"metrics/.+\.(json|ya?ml)", path):
            continue
        parse = json.loads if path.endswith(".json") else from_yaml
        for side, text in zip(metrics, sides.both(path)):
            with contextlib.suppress(ValueError, YAMLError):  # what cannot be read is no metric
                content = parse(text or "{}")
                side.update(flatten(content) if isinstance(content, dict) else {})
    return metrics


def _curves(sides: Sides, stage: Stage) -> tuple[dict, ...]:
    """Return the curves that dvc.yaml plots."""
    curves = [curve(out.plot, *sides.both(out.def_path))
              for out in dag.dvc_stage(sides.repo, stage.name).outs if out.plot]
    return tuple(filter(None, curves))
