"""What happened: which notebooks ran, what they measured, and what the base had. Everything the report says comes from here."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from ruamel.yaml.error import YAMLError

from pipeline import Refused
from pipeline.report import outputs, revision
from pipeline.report.outputs import Changes
from pipeline.report.revision import Revision
from pipeline.run import graph, short

METRIC = "validation_accuracy"
TELLING = ["dvc.lock", "dvc.yaml", "metrics", "notebooks", "params.yaml", "pipeline", "requirements.txt"]
LARGEST = 20_000_000  # bytes of a file that is still read


@dataclass
class Failure:
    """The cell that stopped a notebook: its number, error and reason, its source, and the text it had printed."""

    cell: int
    error: str
    reason: str
    source: str
    printed: str


@dataclass
class Notebook:
    """One stage. `status` is ran, unchanged, failed, not run or removed; metrics of a stage without a result here are empty."""

    name: str
    status: str
    new: bool = False
    same_outputs: bool = False
    note: str = ""
    failure: Failure | None = None
    before: dict = field(default_factory=dict)
    now: dict = field(default_factory=dict)
    changes: Changes | None = None
    unseen: str = ""  # why there are no `changes`
    curve: list[dict] = field(default_factory=list)
    base_curve: list[dict] = field(default_factory=list)


@dataclass
class Facts:
    """Everything for one report. Ids of commits are full; `base` is empty where there is nothing to compare with."""

    head: str
    base: str
    uncommitted: list[str]
    notebooks: list[Notebook]
    metrics: dict
    params: dict
    champion: str | None
    base_champion: str | None
    answers: list[tuple[str, str]]
    base_answers: list[tuple[str, str]]
    differing: list[str]  # stages whose results here are not those that the commit itself records
    troubles: list[str]

    @property
    def failed(self) -> bool:
        return any(each.status in ("failed", "not run") for each in self.notebooks) or not self.notebooks


def gather(root: Path, base: str | None) -> Facts:
    """Read the workspace at `root` and the commit `base`; None is a first run."""
    head = revision.commit(root, "HEAD")
    before = Revision(root, base) if base else None
    facts = Facts(head or "", base or "", _uncommitted(root), [], {}, {}, None, None, [], [], [], [])
    try:
        with Repo(str(root)) as repo:
            _add_notebooks(facts, repo, root, before)
            _add_diffs(facts, repo)
    except LockError:
        raise Refused("Another DVC command is at work in this folder: wait for it to end, then ask for the report again.") from None
    except (DvcException, YAMLError) as error:
        facts.troubles.append(f"DVC cannot read the pipeline: {error}")
    _add_champion(facts, root, before)
    if head and facts.notebooks:
        committed = Revision(root, head).lock()
        now = revision.stages(text(root, "dvc.lock"))
        current = {each.name for each in facts.notebooks if each.status in ("ran", "unchanged")}
        facts.differing = [short(name) for name in now if short(name) in current and name in committed and _outs(now[name]) != _outs(committed[name])]
    return facts


def text(root: Path, path: str) -> str | None:
    """A text file of the workspace; None where it is missing, too large, not text, or a link that leads out of `root`."""
    file = root / path
    try:
        if not file.resolve().is_relative_to(root.resolve()) or file.stat().st_size > LARGEST:
            return None
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def rows(content: str | None) -> list[dict]:
    """A CSV file's rows by column; numbers as float. Rows with missing fields are left out."""
    found = [row for row in csv.DictReader(io.StringIO(content or "")) if None not in row and None not in row.values()]
    return [{name: _number(value) for name, value in row.items()} for row in found]


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def notebook(content: str | None) -> nbformat.NotebookNode | None:
    """An executed notebook that keeps to the format; None where it does not."""
    try:
        found = nbformat.reads(content or "", as_version=4)
        nbformat.validate(found)
        return found
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, nbformat.ValidationError):  # its readers raise all of these
        return None


def _uncommitted(root: Path) -> list[str]:
    """Files that results come from, or are, and that differ from the commit; what else lies about does not matter here."""
    status = ["status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--", *TELLING]
    changed = (revision.git(root, *status) or b"").decode("utf-8", "replace")
    return [entry[3:] for entry in changed.split("\0") if entry]


def _outs(entry: dict) -> list:
    return sorted((out.get("path"), out.get("md5")) for out in entry.get("outs", []))


def _add_notebooks(facts: Facts, repo: Repo, root: Path, before: Revision | None) -> None:
    """A Notebook for every stage, in the order of dvc.yaml and params.yaml, then those that only the base has."""
    called = {stage.addressing: stage.name for stage in repo.index.stages}  # DVC's addresses depend on the working directory
    upstream = {called[stage]: {called[each] for each in needed} for stage, needed in graph(repo).items()}
    status = {called.get(stage, stage): changed for stage, changed in repo.status().items()}
    lock, old_lock = revision.stages(text(root, "dvc.lock")), before.lock() if before else {}
    failed: set[str] = set()
    for stage, needed in upstream.items():
        name = short(stage)
        page = f"reports/{name}.ipynb"
        each = Notebook(name, "unchanged", new=bool(before) and stage not in old_lock)
        facts.notebooks.append(each)
        executed = notebook(text(root, page)) if stage in status or lock.get(stage) != old_lock.get(stage) else None
        if executed is None and stage in lock and stage not in status and lock[stage] != old_lock.get(stage):  # a link into a cache that lies elsewhere
            executed = notebook(revision.stored(repo, revision.md5_of(lock[stage], page))[0])
        if stage in status:
            each.failure = _failure(executed)
            each.status, each.note = ("failed", "") if each.failure else ("not run", _reason(status[stage], needed & failed))
            if each.failure or needed & failed:
                failed.add(stage)
        elif lock.get(stage) != old_lock.get(stage) or not before:
            each.status = "ran"
            each.same_outputs = stage in old_lock and _outs(lock[stage]) == _outs(old_lock[stage])
            _compare(each, repo, executed, revision.md5_of(old_lock[stage], page) if stage in old_lock else None, before is not None)
        path = f"metrics/{name}.csv"
        each.curve = rows(text(root, path)) if each.status in ("ran", "unchanged") else []
        each.base_curve = rows(before.read(path)) if before and each.status != "unchanged" else []
    facts.notebooks += [Notebook(short(stage), "removed") for stage in old_lock if stage not in upstream]


def _reason(changed: list, failed: set[str]) -> str:
    if failed:
        return f"needs {', '.join(sorted(map(short, failed)))}"
    entries = [entry for each in changed for entry in (each.values() if isinstance(each, dict) else [each])]  # "changed command" is a bare string
    missing = all(isinstance(entry, dict) and all(state == "deleted" for state in entry.values()) for entry in entries)
    return "results are not in this folder" if missing else "out of date"


def _failure(executed: nbformat.NotebookNode | None) -> Failure | None:
    noted = executed.metadata.get("failure") if executed else None
    if not isinstance(noted, dict) or type(noted.get("cell")) is not int or not 1 <= noted["cell"] <= len(executed.cells):
        return None
    cell = executed.cells[noted["cell"] - 1]
    printed = "\n".join(outputs.text_of(output) for output in cell.get("outputs", []) if output.output_type != "error")
    return Failure(noted["cell"], str(noted.get("error", "")), str(noted.get("reason", "")), cell.source, printed)


def _compare(each: Notebook, repo: Repo, executed: nbformat.NotebookNode | None, md5: str | None, has_base: bool) -> None:
    """Fill in the changes of the outputs, or why they cannot be had."""
    if not has_base or each.new:
        each.unseen = "there is no base to compare with" if not has_base else "it is new"
    elif not each.same_outputs:
        if executed is None:
            each.unseen = "its executed copy here is missing, or not a notebook"
            return
        content, each.unseen = revision.stored(repo, md5)
        if content is not None and (old := notebook(content)) is not None:
            each.changes = outputs.changes(old, executed)
        elif content is not None:
            each.unseen = "the base's copy is not a notebook"


def _add_diffs(facts: Facts, repo: Repo) -> None:
    """What `dvc metrics diff` and `dvc params diff` know, without the files of stages that have no result here."""
    current = {each.name: each for each in facts.notebooks if each.status in ("ran", "unchanged")}
    owner = {out.def_path: short(stage.name) for stage in repo.index.stages for out in stage.outs}
    compared = repo.metrics.diff(facts.base or "HEAD", "workspace", all=True) if facts.head else {}
    for path, values in compared.get("diff", {}).items():
        name = owner.get(path, Path(path).stem)  # a removed model has no stage here any more, its file is named after it
        old = {key: value["old"] for key, value in values.items() if facts.base and value.get("old") is not None}
        new = {key: value["new"] for key, value in values.items() if name in current and value.get("new") is not None}
        if name in current or path not in owner:
            facts.metrics[path] = {key: (old.get(key), new.get(key)) for key in sorted({*old, *new})}
        for each in facts.notebooks:
            if each.name == name:
                each.before, each.now = old, new
    if facts.base:
        params = repo.params.diff(facts.base, "workspace")
        changed = {key: (value.get("old"), value.get("new")) for values in params.get("diff", {}).values() for key, value in values.items()}
        facts.params = dict(sorted(changed.items()))  # DVC's own order changes from run to run
        unreadable = [*_unreadable(compared, current, owner), *_unreadable(params, {}, {})]
        facts.troubles += [f"DVC could not compare {path}" for path in unreadable]


def _unreadable(compared: dict, current: dict, owner: dict) -> list[str]:
    """Files that DVC names in its errors, unless their stage has no result anyway."""
    errors = compared.get("errors", {})
    return sorted({path for errors_of in errors.values() if isinstance(errors_of, dict) for path in errors_of if path not in owner or owner[path] in current})


def _add_champion(facts: Facts, root: Path, before: Revision | None) -> None:
    """The champion is what a notebook's metrics name so; its answers stand in metrics/confusion.csv."""
    judge = next((each for each in facts.notebooks if "champion" in each.now or "champion" in each.before), None)
    if not judge:
        return
    facts.champion, facts.base_champion = judge.now.get("champion"), judge.before.get("champion")
    if facts.champion:
        facts.answers = _answers(text(root, "metrics/confusion.csv"))
    if facts.base_champion and before:
        facts.base_answers = _answers(before.read("metrics/confusion.csv"))


def _answers(content: str | None) -> list[tuple[str, str]]:
    return [(row["actual"], row["predicted"]) for row in csv.DictReader(io.StringIO(content or "")) if row.get("actual") and row.get("predicted")]
