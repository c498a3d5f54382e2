"""What happened: which stages ran, what they measured, and what the base had. All that the report says is from here."""

import re
from collections import Counter
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat
from dvc.lock import LockError
from dvc.utils.flatten import flatten
from dvc.utils.serialize import PARSERS, ParseError
from ruamel.yaml.error import YAMLError

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import from_yaml
from nbproof.pipeline import config, dag
from nbproof.pipeline.dag import Stage
from nbproof.review import base, outputs
from nbproof.review.plots import Plot, rows
from nbproof.review.base import Sides
from nbproof.runner.source import counted


@dataclass
class Result:
    """One stage. `status` is ran, unchanged, failed, not run or removed, `why` the reason of one that is not run.

    `page` is empty for an ordinary command. `failure` holds the number of the cell that stopped a notebook (from 1),
    error, reason, source, and what it had printed. `unseen` says why there are no `changes`. `pair` is the executed
    copy of the base and that of the branch.
    """

    stage: str
    name: str
    page: str = ""
    status: str = "unchanged"
    why: str = ""
    blocked: list[str] = field(default_factory=list)
    new: bool = False
    same_outputs: bool = False
    alike: bool = False  # the base's code, data and parameters; other bytes are another machine's
    failure: dict = field(default_factory=dict)
    before: dict = field(default_factory=dict)
    now: dict = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    unseen: str = ""
    pair: tuple = ()
    plots: list[Plot] = field(default_factory=list)

    @property
    def current(self) -> bool:
        return self.status in ("ran", "unchanged")


@dataclass
class Facts:
    """Everything for one report. Ids of commits are full; `base` is empty where there is nothing to compare with."""

    project: config.Project
    head: str
    base: str
    uncommitted: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    metrics: dict = field(default_factory=dict)  # file -> key -> (base's value, branch's value)
    params: dict = field(default_factory=dict)  # parameter -> (base's value, branch's value)
    differing: list[str] = field(default_factory=list)  # stages whose results are not those that the commit records
    pulled: str = ""  # why a workflow got nothing from the DVC remote
    troubles: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return any(each.status in ("failed", "not run") for each in self.results) or not self.results

    @property
    def comparison(self) -> Result | None:
        return next((each for each in self.results if self.project.compare in (each.stage, each.name)), None)


def gather(root: Path, fork: str | None, outcome: str = "") -> Facts:
    """Read the workspace at `root` and the commit `base` (None: a first run). `outcome` names what failed."""
    facts, read = Facts(config.load(), base.commit(root, "HEAD") or "", fork or ""), {}
    facts.pulled = (base.here(root, base.PULLED) or "").strip()
    try:
        with dag.opened(root) as repo:
            read = dag.read(repo)
            sides = Sides.of(repo, root, facts.base)
            lock, committed = sides.lock, base.recorded(base.at(root, facts.head, "dvc.lock"))
            facts.results = _results(sides, read, outcome)
            _add_diffs(facts, sides, read)
            facts.differing = [each.name for each in facts.results if each.current and each.stage in committed
                               and _outs(lock[each.stage]) != _outs(committed[each.stage])]
    except (UserError, YAMLError) as error:
        if isinstance(error.__context__, LockError):  # the report can be had a moment later
            raise
        facts.troubles.append(str(error))
    facts.uncommitted = _uncommitted(facts.project, read)
    return facts


def _uncommitted(contract: config.Project, read: dict[str, Stage]) -> list[str]:
    """Files that results come from, or are, and that differ from the commit; what else lies about does not matter."""
    paths = {"dvc.lock", "dvc.yaml", "params.yaml", "project.yaml", contract.pins or "dvc.lock"}
    for stage in read.values():
        paths |= {*stage.deps, *stage.outputs}
    inside = sorted(path for path in paths if not path.startswith(("/", "..")))
    status = ["--literal-pathspecs", "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--"]
    changed = (base.git(contract.root, *status, *inside) or b"").decode("utf-8", "replace")
    return [entry[3:] for entry in changed.split("\0") if entry]


def _outs(entry: dict) -> list:
    return sorted((out.get("path"), out.get("md5")) for out in entry.get("outs", []))


def _results(sides: Sides, read: dict[str, Stage], outcome: str) -> list[Result]:
    """A Result for every stage, in the order of dvc.yaml and params.yaml, then those that only the base has."""
    short = {name: read[name].short if name in read else name.rpartition("@")[2] for name in {**read, **sides.old_lock}}
    often = Counter(short.values())
    found = {name: Result(name, call if often[call] == 1 else name, status="unchanged" if name in read else "removed")
             for name, call in short.items()}
    named = re.findall(r"^Failed: (.+?)\.(?: |$)", outcome, re.MULTILINE)  # the last words of a run
    told = {name for each in named for name in each.split(", ")}
    called = {each.addressing: getattr(each, "name", "") for each in sides.repo.index.stages}  # depends on the folder
    status = {called.get(address, address): changed for address, changed in sides.repo.status().items()}
    axes = _axes(sides.root)
    for name in TopologicalSorter({name: stage.needs for name, stage in read.items()}).static_order():
        result = found[name]
        result.page = read[name].short if read[name].notebook else ""
        result.new = bool(sides.base) and name not in sides.old_lock
        result.blocked = [found[each].name for each in sorted(read[name].needs)
                          if found[each].blocked or found[each].status == "failed"]
        if name in status or result.blocked:
            _explain(result, sides, status.get(name, []), bool({name, short[name]} & told))
        else:
            _compare(result, sides)
            result.plots = _plots(sides, read[name], axes, result.status)
    return list(found.values())


def _explain(result: Result, sides: Sides, changed: list, told: bool) -> None:
    """Why a stage has no result: its executed copy says so, or the run, or what DVC sees."""
    executed = outputs.notebook(base.here(sides.root, f"reports/{result.page}.ipynb")) if result.page else None
    result.failure = _failure(executed) if executed else {}
    # "changed command" is a bare string, all else a mapping of files
    entries = [entry for each in changed for entry in (each.values() if isinstance(each, dict) else [each])]
    missing = all(isinstance(each, dict) and all(state == "deleted" for state in each.values()) for each in entries)
    result.status = "failed" if result.failure or told else "not run"
    result.why = "results are not in this folder" if missing else "out of date"


def _failure(executed: nbformat.NotebookNode) -> dict:
    noted, cells = executed.metadata.get("failure"), counted(executed.cells)
    if not isinstance(noted, dict) or type(noted.get("cell")) is not int or not 1 <= noted["cell"] <= len(cells):
        return {}
    cell = cells[noted["cell"] - 1]
    printed = "\n".join(outputs.text_of(each) for each in cell.get("outputs", []) if each.output_type != "error")
    return {"error": "", "reason": "", **noted, "source": cell.source, "printed": printed}


def _compare(result: Result, sides: Sides) -> None:
    """Whether the stage ran, and the changes of its notebook's outputs, or why they cannot be had."""
    before, now = sides.old_lock.get(result.stage), sides.lock[result.stage]
    if sides.base and now == before:
        return
    if result.stage in sides.old_lock and base.alike(result.stage, sides.lock, sides.old_lock):
        result.alike = True
        return
    result.status, result.same_outputs = "ran", before is not None and _outs(now) == _outs(before)
    if not result.page or not before or result.same_outputs:
        return
    page = f"reports/{result.page}.ipynb"
    if not (executed := outputs.notebook(sides.now(result.stage, page))):
        result.unseen = "its executed copy here is missing, or not a notebook"
        return
    content, result.unseen = sides.then(result.stage, page)
    if old := outputs.notebook(content):
        result.changes, result.pair = outputs.changes(old, executed), (old, executed)
    elif not result.unseen:
        result.unseen = "the base's copy is not a notebook"


def _axes(root: Path) -> dict:
    """What the list `plots` of dvc.yaml, beside that of each stage, says of single files: it can give several y."""
    content = from_yaml(base.here(root, "dvc.yaml") or "") or {}
    plots = [each for each in content.get("plots") or [] if isinstance(each, dict)]
    return {path: axes for each in plots for path, axes in each.items() if isinstance(axes, dict)}


def _plots(sides: Sides, stage: Stage, axes: dict, status: str) -> list[Plot]:
    """The plots that dvc.yaml gives a y: of several the first; without an x it is the first column."""
    found = []
    for output in dag.dvc_stage(sides.repo, stage.name).outs:
        path = output.def_path
        given = {**(output.plot if isinstance(output.plot, dict) else {}), **axes.get(path, {})}
        y = next(iter(given["y"]), None) if isinstance(given.get("y"), list) else given.get("y")
        if isinstance(y, str) and not (now := rows(sides.now(stage.name, path))).empty:
            before = now if status == "unchanged" else rows(sides.then(stage.name, path)[0])
            x = str(given.get("x") or now.columns[0])
            found.append(Plot(path, str(given.get("template", "")), x, y, now, before))
    return found


def _add_diffs(facts: Facts, sides: Sides, read: dict[str, Stage]) -> None:
    """Metrics of both sides, without those of stages that have no result here, and what `dvc params diff` knows."""
    by_stage = {each.stage: each for each in facts.results}
    files = {output.def_path: by_stage[name] for name in read for output in dag.dvc_stage(sides.repo, name).outs
             if output.metric}
    files |= {out["path"]: by_stage[name] for name, entry in sides.old_lock.items() for out in entry.get("outs", [])
              if name not in read and out.get("path", "").startswith("metrics/") and out["path"].endswith(".json")}
    for path, result in files.items():
        old = _metrics(sides.then(result.stage, path)[0], path, facts) if facts.base else {}
        new = _metrics(sides.now(result.stage, path), path, facts) if result.current else {}
        new = old if result.alike else new
        result.before, result.now = {**old, **result.before}, {**new, **result.now}
        if (result.current or result.status == "removed") and old != new:
            facts.metrics[path] = {key: (old.get(key), new.get(key)) for key in sorted({*old, *new})}
    if not facts.base:
        return
    params = sides.repo.params.diff(facts.base, "workspace")
    facts.params = dict(sorted((key, (value.get("old"), value.get("new"))) for values in params.get("diff", {}).values()
                               for key, value in values.items()))  # DVC's own order changes from run to run
    unreadable = {path for errors in params.get("errors", {}).values() if isinstance(errors, dict) for path in errors}
    facts.troubles += [f"DVC could not compare {path}" for path in sorted(unreadable)]


def _metrics(content: str | None, path: str, facts: Facts) -> dict:
    """The metrics of a file, nested ones with their sections' names, as DVC names them."""
    if content is None:
        return {}
    try:
        found = PARSERS[Path(path).suffix.lower()](content, path)
        return flatten(found) if isinstance(found, dict) else {"": found}
    except (KeyError, ParseError):
        facts.troubles.append(f"DVC could not compare {path}")
        return {}
