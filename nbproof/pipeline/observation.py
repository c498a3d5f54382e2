"""What one execution of a notebook reads and writes, against what dvc.yaml lists.

The kernel reports what Python opens. What a C library or another program writes is found by names
and times of the project's files before and after; what those read, nobody sees
(docs/your-notebooks.md).
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import ClassVar, Self

import nbproof
from nbproof.notebook import tracking
from nbproof.notebook.files import CONTRACT, root, write_whole
from nbproof.pipeline import config
from nbproof.pipeline.dag import Stage
from nbproof.runner import StageFailure

PACKAGE = Path(nbproof.__file__).resolve().parent
SETTINGS = {CONTRACT, "params.yaml", "dvc.yaml", "dvc.lock"}  # known to nbproof otherwise
CACHES = {"__pycache__", "scratch", "served", "node_modules", "mlruns", "mlartifacts", "joblib",
          "catboost_info", "lightning_logs", "wandb"}
STORE = "mlflow.db"  # and mlflow.db-journal, say
ENVIRONMENTS = ("pyvenv.cfg", "conda-meta")
# What a person may save while stages run, found by its time alone, is no output of theirs.
EDITED = {".py", ".ipynb", ".md", ".yaml", ".yml", ".toml", ".lock", ".html", ".dvc", ".swp"}


def is_ignored(path: str) -> bool:
    """Return whether a file of the project never is a dependency or an output."""
    parts = PurePosixPath(path).parts
    whole = root() / path
    return (path in SETTINGS or not CACHES.isdisjoint(parts)
            or any(part.startswith((".", STORE)) for part in parts)
            or whole.is_relative_to(PACKAGE) or _is_temporary(whole))


def _is_temporary(path: Path) -> bool:
    """Return whether `path` is in a temporary folder that is inside the project."""
    folder = Path(tempfile.gettempdir())
    return folder.is_relative_to(root()) and path.is_relative_to(folder)


def holds(listed: Iterable[str], path: str) -> bool:
    """Return whether `path` is one of the files and folders `listed`, or below one.

    A folder's version stands for it (data/collected.json for data/collected, which `nbproof
    harvest` writes): DVC would refuse a dependency on a folder that not every clone has.
    """
    return any(f"{path}/".startswith((f"{name}/", f"{name.removesuffix('.json')}/"))
               for name in listed)


def snapshot(skip: set[str]) -> dict[str, tuple[int, ...]]:
    """Return size, time and inode of the project's files, except what `skip` names or holds."""
    stamps, folders = {}, [root()]
    while folders:
        entries = list(os.scandir(folders.pop()))
        if any(entry.name in ENVIRONMENTS for entry in entries):
            continue
        for entry in entries:
            path = Path(entry.path).relative_to(root()).as_posix()
            if path in skip or is_ignored(path):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif stamp := _stamp(path):
                stamps[path] = stamp
    return stamps


def _stamp(path: str) -> tuple[int, ...]:
    """Return what changes with a file; empty where there is none (it may end at any time)."""
    with contextlib.suppress(OSError):
        status = (root() / path).stat()
        return status.st_size, status.st_mtime_ns, status.st_ino
    return ()


class Observation:
    """What one execution of `stage` has read and written so far, as paths below the project.

    `stages` are all of the project: what they list is not searched for changes, for it may be
    large, and belongs to a stage. Without `enforce`, what is not listed is only noted. The block
    is the execution; `shared` is set where another one was at work beside it.
    """

    at_work: ClassVar[list[Self]] = []
    shared = warned = False

    def __init__(self, stage: Stage, stages: Iterable[Stage], enforce: bool = True):
        self.stage, self.enforce = stage, enforce
        self.read, self.written, self.databases = set(), set(), set()
        self.listed = {path for other in [stage, *stages] for path in other.deps + other.outputs}
        files = {path: _stamp(path) for path in self.listed if (root() / path).is_file()}
        self.before = snapshot(self.listed | {"reports"}) | files

    def __enter__(self) -> Self:
        self.at_work.append(self)
        for one in self.at_work:
            one.shared = one.shared or len(self.at_work) > 1
        return self

    def __exit__(self, *_) -> None:
        self.at_work.remove(self)

    def on_event(self, pass_on: Callable[[dict], None]) -> Callable[[dict], None]:
        """Return `pass_on` that fails a cell after which the stage needs what it does not list."""
        def check(event: dict) -> None:
            if "read" in event:
                self.read, self.written = set(event["read"]), set(event["written"])
                self.databases = set(event["databases"])
            elif "ran" in event:
                if paths := self.unlisted_deps():
                    self.refuse(deps_sentence(self.stage, paths), pass_on)
            elif "fallback" not in event:
                pass_on(event)

        return check

    def refuse(self, sentence: str, pass_on: Callable[[dict], None]) -> None:
        """Raise StageFailure; once a warning instead where project.yaml says `observe: warn`."""
        if not self.enforce:
            return
        if config.load().observe != "warn":
            raise StageFailure(sentence)
        if not self.warned:
            pass_on({"message": f"warning: {sentence}"})
        self.warned = True

    def is_changed(self, path: str) -> bool:
        """Return whether a file is there and is not what it was before the run, as far as known."""
        stamp = _stamp(path)
        return bool(stamp) and (stamp != self.before.get(path))

    def inputs(self) -> set[str]:
        """Return the files that were read and were there before the run."""
        read = self.read | {path for path in self.databases if not self.is_changed(path)}
        return {path for path in read if not is_ignored(path) and (root() / path).is_file()
                and (path in self.before or holds(self.listed, path))}

    def outputs(self) -> set[str]:
        """Return the files that were written and are still there."""
        return {path for path in self.written | self.databases
                if not is_ignored(path) and self.is_changed(path)}

    def unlisted_deps(self) -> list[str]:
        """Return what was read and is neither a dep of the stage nor written by it."""
        known = [*self.stage.deps, *self.stage.outputs]
        return sorted(path for path in self.inputs() - self.outputs() if not holds(known, path))

    def finish(self, pass_on: Callable[[dict], None]) -> None:
        """Keep what was observed for `nbproof deps`; StageFailure for an output not listed.

        What only its time shows is a warning where another stage was at work, too.
        """
        noted = self.outputs()
        past_hook = self.changed_files() - noted
        keep = {"read": sorted(self.inputs()), "written": sorted(noted | past_hook)}
        write_whole(record_of(self.stage.short), json.dumps(keep))
        # A dep that changed is another failure: nbproof.pipeline.stage.edited.
        noted = {path for path in noted if not holds(self.stage.deps, path)}
        if mixed := sorted(noted & self.read & set(self.before)):
            self.refuse(f"{self.stage.notebook} reads {mixed[0]} and writes it again: let it "
                        "write another file", pass_on)
        if unlisted := sorted(path for path in noted if not holds(self.stage.outputs, path)):
            self.refuse(outs_sentence(self.stage, unlisted), pass_on)
        if past_hook and self.shared:
            pass_on({"message": f"warning: while it ran, {', '.join(sorted(past_hook)[:5])} changed"
                                ", which no stage lists: add it to the outs of the stage that "
                                "wrote it"})
        elif past_hook:
            self.refuse(outs_sentence(self.stage, sorted(past_hook)), pass_on)

    def changed_files(self) -> set[str]:
        """Return the files that appeared or changed since the start, not by a person's editor."""
        changed = {path for path in snapshot(self.listed | {"reports"}) if self.is_changed(path)
                   and PurePosixPath(path).suffix not in EDITED}
        names = tracking.git("ls-files", "--", *changed)
        return changed and changed - {*names.splitlines()}


def record_of(short: str) -> Path:
    """Return the file with what the last run of a stage read and wrote."""
    return root() / ".dvc" / "tmp" / "observed" / f"{short}.json"


def deps_sentence(stage: Stage, paths: list[str]) -> str:
    """Return what to add to the deps in dvc.yaml for `paths`: of a package its folder."""
    lines = dict.fromkeys(f"`- {dep_for(stage.notebook, path)}`" for path in paths)
    return (f"dvc.yaml: the stage {stage.name} does not list all that {stage.notebook} depends on: "
            f"add {', '.join(lines)} to its deps (nbproof deps --fix does), so that an edit there "
            "runs it again")


def unlisted(stage: Stage) -> tuple[list[str], list[str]]:
    """Return what a stage's last run read and wrote that is not among its deps and its outs."""
    path = record_of(stage.short)
    if not path.exists():
        return [], []
    last = json.loads(path.read_text(encoding="utf-8"))
    deps = {dep_for(stage.notebook, name) for name in last["read"]
            if not holds(stage.deps + stage.outputs, name) and name not in last["written"]}
    return sorted(deps), [name for name in last["written"] if not holds(stage.outputs, name)]


def dep_for(notebook: str, path: str) -> str:
    """Return `path`, or for a module of a package below notebooks/ the package's folder."""
    folder = "/".join(path.split("/")[:2])
    is_package = (path.startswith("notebooks/") and path.endswith(".py")
                  and (root() / folder).is_dir() and not notebook.startswith(f"{folder}/"))
    return folder if is_package else path


def outs_sentence(stage: Stage, paths: list[str]) -> str:
    """Return what to add to the outs in dvc.yaml for `paths`."""
    lines = ", ".join(f"`- {path}`" for path in paths[:5])
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return (f"dvc.yaml: the stage {stage.name} does not list all that {stage.notebook} writes: add "
            f"{lines}{more} to its outs (nbproof deps --fix does), or let it write to scratch/")
