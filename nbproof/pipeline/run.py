"""The whole pipeline: every stage that DVC calls changed, independent ones at the same time."""

import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import reduce
from operator import getitem
from pathlib import Path

import psutil
from dvc.repo import Repo, lock_repo
from dvc.utils.serialize import modify_yaml
from filelock import FileLock, Timeout

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root, write_whole
from nbproof.notebook.params import read, section
from nbproof.pipeline import compare, config, console, dag, deps, index
from nbproof.pipeline.dag import Stage
from nbproof.pipeline.verify import heal_cache, heal_lock, heal_run_cache, is_right
from nbproof.runner import determinism, schema, source, warm
from nbproof.sweep import space
from nbproof.tracking import sync
from nbproof.tracking.registry import promote_once
from nbproof.workspace import edit, git
from nbproof.workspace.bootstrap import with_tools

WORDS_OF_DVC = ("Running stage ", "> ", "Generating lock file ", "Updating lock file ", "Use `dvc push`", "\tgit add ",
                "To track the changes ", "To enable auto staging", "\tdvc config core.autostage ")
OUTPUTS = ("data", "models", "metrics", "reports")  # the folders that hold a project's results


def run(jobs: int, force: bool, remedy: bool = True, register: bool = True) -> int:
    """Bring every stage up to date, at most `jobs` at a time; 0 if all is well.

    `force` runs all of them again without DVC's run-cache; `remedy` takes the way out that a failure brings along;
    `register` has the champion registered.
    """
    if jobs < 1:
        raise UserError(f"JOBS must be at least 1, found {jobs}.")
    lock = root() / ".dvc" / "tmp" / "run.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):  # the system releases it, however this process ends
            return _run(jobs, force, {} if remedy else None, register)
    except Timeout:
        raise UserError("Another run is at work in this folder: wait for it to end, then run again.") from None


def _run(jobs: int, force: bool, taken: dict[str, str] | None, register: bool) -> int:
    """`taken` are the remedies that this run has taken, parameter and words, or None where it may take none."""
    started = time.monotonic()
    heal_lock()
    compare.announce()
    with dag.opened(root()) as repo, lock_repo(repo):  # one lock: DVC reads its files again after each
        repo.index.check_graph()  # no circle, no output twice
        found = dag.read(repo)
        check_all(found)
        git.restore({Path(out.path).with_name(".gitignore") for stage in found.values() for out in stage.outputs})
        forget_removed(repo, found)
        healed = heal_cache(repo)
        changed = set(found) if force else with_downstream(set(repo.status()), found)
        if changed and not force:
            healed += heal_run_cache(repo, changed)
    for sentence in healed:
        print(sentence, flush=True)
    failed = execute(changed, found, jobs, force)
    order_lock(list(found))  # also where nothing ran: plain `dvc repro` may have appended
    if failed and taken is not None and (switched := take_remedy(failed, found, taken)):
        print(*switched.values(), flush=True)
        return _run(jobs, force, taken | switched, register)
    if failed:
        not_run = sorted(found[name].short for name in with_downstream(set(failed), found) - set(failed))
        names = ", ".join(found[name].short for name in failed)
        print(f"Failed: {names}." + (f" Not run: {', '.join(not_run)}." if not_run else ""), file=sys.stderr)
        for reason in failed.values():
            print(reason, file=sys.stderr)
        index.write(found, with_downstream(set(failed), found) - set(failed))
        return 1
    if changed:
        print(index.table(found), flush=True)
    if register:
        promote_once()
    if changed or not index.is_current():
        index.write(found, set())
    done = f"Done in {time.monotonic() - started:.0f} s." if changed else "Everything is up to date."
    print(f"{done} The result: {index.PLACE}", flush=True)
    if sync.waiting():
        print("The tracking server has not taken all runs yet: make sync sends the rest.")
    for sentence in [*compare.compared(found), *(taken or {}).values()]:
        print(sentence)
    return 0


def check_all(found: dict[str, Stage]) -> None:
    """Strip every notebook, check params.yaml and what dvc.yaml lists, before anything runs."""
    notebooks = [root() / stage.notebook for stage in found.values() if stage.notebook]
    twice = {path for path in notebooks if notebooks.count(path) > 1}
    if twice:
        raise UserError(f"dvc.yaml: two stages run {schema.shown(min(twice))}, and both would write its reports: "
                      "give each a notebook of its own.")
    for notebook in notebooks:
        if source.strip_file(notebook):
            git.refresh(notebook)
        schema.values_of(notebook)
    schema.check_known(notebooks)
    for stage in found.values():
        if stage.notebook:
            deps.check(stage)
            _check_sections(stage.notebook)
    judge = config.load().compare
    if judge and judge not in {stage.short for stage in found.values()}:
        raise UserError(f"project.yaml: compare is {judge}, and dvc.yaml has no such stage.")
    space.check_all(found)


def _check_sections(notebook: str) -> None:
    """UserError where params.yaml lacks a section that a notebook reads, also one of which it declares no parameter."""
    try:
        for name in deps.read_by(root() / notebook).values():
            section(name)
    except KeyError as error:
        raise UserError(f"{error.args[0]}, which {notebook} reads.") from None


def with_downstream(names: set[str], found: dict[str, Stage]) -> set[str]:
    """`names` and every stage that needs one of them, directly or not."""
    reached = set(names) & set(found)
    while more := {name for name, stage in found.items() if name not in reached and stage.needs & reached}:
        reached |= more
    return reached


def forget_removed(repo: Repo, found: dict[str, Stage]) -> None:
    """Take stages that dvc.yaml no longer has out of dvc.lock, and their results off the disk: nothing reads them."""
    lock = root() / "dvc.lock"
    recorded = _recorded(lock)
    removed = [name for name in recorded if name not in found]
    kept = [out.path for stage in found.values() for out in stage.outputs]
    for name in removed:
        for out in recorded[name].get("outs", []):
            if not any(f"{each}/".startswith(f"{out['path']}/") for each in kept):
                _delete(repo, out["path"], str(out.get("md5")))
        print(f"{name.rpartition('@')[2]} is no longer in dvc.yaml or params.yaml: its results are removed from the "
              "folder (DVC's cache and git keep them).", flush=True)
    if removed:
        with modify_yaml(str(lock)) as content:
            for name in removed:
                del content["stages"][name]


def _is_result(path: str) -> bool:
    """Whether `path` lies in a folder of results; a lock comes from a branch, and may call anything an output."""
    parts = Path(path).parts
    inside = (root() / path).parent.resolve().is_relative_to(root())
    return len(parts) > 1 and parts[0] in OUTPUTS and ".." not in parts and inside


def _delete(repo: Repo, name: str, md5: str) -> None:
    """Remove a result that is still what the lock records; of a folder each such file, and then what is empty."""
    path, listed = root() / name, Path(repo.cache.local.oid_to_path(md5))
    if not _is_result(name):
        return
    if not md5.endswith(".dir"):
        if path.is_file() and is_right(path, md5):
            path.unlink()
    elif path.is_dir() and not path.is_symlink() and listed.is_file() and is_right(listed, md5):
        for each in json.loads(listed.read_text(encoding="utf-8")):
            _delete(repo, f"{name}/{each['relpath']}", each["md5"])
        for folder in sorted([path, *filter(Path.is_dir, path.rglob("*"))], reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()


def _recorded(lock: Path) -> dict:
    return config.recorded(lock.read_text(encoding="utf-8") if lock.exists() else "")


def order_lock(names: list[str]) -> None:
    """Give dvc.lock the order of dvc.yaml: DVC appends stages as they end, which varies when they run side by side."""
    place = {name: number for number, name in enumerate(names)}
    recorded = list(_recorded(root() / "dvc.lock"))
    if (right := sorted(recorded, key=lambda name: place.get(name, len(place)))) != recorded:
        with modify_yaml(str(root() / "dvc.lock")) as content:
            for name in right:
                content["stages"][name] = content["stages"].pop(name)


def execute(names: set[str], found: dict[str, Stage], jobs: int, force: bool) -> dict[str, str]:
    """Run the stages `names`, each once what it needs is there; what failed, with the last words of each."""
    waiting, failed = [name for name in found if name in names], {}
    with (_warm([found[name] for name in waiting], force) as kernels, console.screen(found, names) as screen,
          concurrent.futures.ThreadPoolExecutor(jobs) as pool):
        commands = Commands(found, force, screen, kernels)
        running: dict[concurrent.futures.Future, str] = {}
        try:
            while waiting or running:
                blocked = with_downstream(set(failed), found)
                waiting = [name for name in waiting if name not in blocked]
                unfinished = {*waiting, *running.values()}
                for name in [name for name in waiting if not found[name].needs & unfinished]:
                    waiting.remove(name)
                    running[pool.submit(commands.reproduce, name)] = name
                done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future)
                    code, last_words = future.result()
                    if code != 0:
                        failed[name] = last_words
        except BaseException:  # Ctrl-C above all: nothing more is started, and nothing that was started goes on
            pool.shutdown(wait=False, cancel_futures=True)
            commands.end()
            raise
    return failed


def _warm(stages: list[Stage], force: bool) -> contextlib.AbstractContextManager[dict[str, str]]:
    """The process that kernels of `stages` are forked from, as long as this lasts; gives variables for the stages.

    Without `force` it may be that no kernel is needed, as where only text has changed, so it waits for the first.
    """
    notebooks = [root() / stage.notebook for stage in stages if stage.notebook]
    if not notebooks or os.environ.get("ENGINE") == "ray":  # there kernels are elsewhere
        return contextlib.nullcontext({})
    tools = with_tools()
    environment = determinism.environment(root(), os.devnull) | {name: tools[name] for name in ("PATH", "VIRTUAL_ENV")}
    return warm.process(deps.libraries(notebooks), environment, at_once=force)


class Commands:
    """The `dvc repro` processes of one run, shown on `screen`. `force` repeats every stage without DVC's run-cache;
    `kernels` are variables that tell stages where their kernels come from."""

    def __init__(self, found: dict[str, Stage], force: bool, screen, kernels: dict[str, str]):
        self.kernels = kernels
        self.screen, self.found = screen, found
        self.options = ["--force", "--no-run-cache"] if force else []
        self.guard, self.ended, self.processes = threading.Lock(), False, set()

    def reproduce(self, name: str) -> tuple[int, str]:
        """`dvc repro` of one stage; its exit code and, if it failed, its last words. What it says is shown at once."""
        # Siblings wait for each other's short lock; without the flag one that commits makes the others fail at the end.
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", *self.options, name]
        environment = with_tools() | {"NBPROOF_STARTED_BY": str(os.getpid()), "PYTHONUNBUFFERED": "1"} | self.kernels
        environment |= {"NBPROOF_FORCE": "1"} if self.options else {}
        if self.screen.events:
            environment["NBPROOF_LIVE"] = "1"
        with self.guard:
            if self.ended:
                return 130, f"{name}: interrupted"
            process = subprocess.Popen(command, cwd=root(), env=environment, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True, errors="replace")
            self.processes.add(process)
        self.screen.note(name, state="runs")
        words = self._shown(process, self.found[name])
        self.screen.note(name, state="failed" if process.returncode else "done")
        with self.guard:
            self.processes.discard(process)
        if process.returncode == 0:
            return 0, ""
        failure = next((line for line in words if line.startswith(f"{self.found[name].short}: notebooks/")), "")
        return process.returncode, failure or "\n".join([f"{name} failed; its last words:", *words[-15:]])

    def _shown(self, process: subprocess.Popen, stage: Stage) -> list[str]:
        """Print what a stage says as it comes; all of its lines but DVC's own."""
        prefix, words = f"{stage.short}: ", []
        with process:
            for line in map(str.rstrip, process.stdout):
                if not line or line.startswith(WORDS_OF_DVC):
                    continue
                if stage.notebook and line.startswith("\x1e"):  # how far it is, for the table
                    self.screen.note(stage.name, **json.loads(line[1:]))
                    continue
                words.append(line)
                if line.startswith(f"{prefix}notebooks/"):  # a failure is said once, at the end
                    continue
                if line.startswith(prefix):
                    self.screen.line(line)
                elif stage.notebook is None and not line.startswith("ERROR: "):
                    self.screen.line(f"{prefix}{line}")
        return words

    def end(self) -> None:
        """End every process at work: those that Ctrl-C reached leave by themselves, others are asked, then killed."""
        with self.guard:
            self.ended = True
            family = [each for process in self.processes for each in _family(process.pid)]
        stage_processes = [each for each in family if each.pid not in {process.pid for process in self.processes}]
        _, stage_processes = psutil.wait_procs(stage_processes, timeout=2)
        for each in stage_processes:
            _signal(each, signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        _, family = psutil.wait_procs(family, timeout=5)
        for each in family:
            _signal(each, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)


def _family(pid: int) -> list[psutil.Process]:
    """The process `pid` and all below it."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def take_remedy(failed: dict[str, str], found: dict[str, Stage], taken: dict[str, str]) -> dict[str, str]:
    """Where a failed notebook's error brought a remedy, set it in params.yaml: the parameter, and what to tell.

    No parameter is set twice in one run, so that remedies that contradict each other come to an end.
    """
    for name in filter(lambda name: found[name].notebook, failed):
        report = root() / "reports" / f"{found[name].short}.ipynb"
        noted = source.read(report)["metadata"].get("failure", {}) if report.exists() else {}
        remedy = noted.get("remedy", {})
        key, value = remedy.get("parameter"), remedy.get("value")
        known = {each.key: each for each in schema.declared(root() / found[name].notebook).values()}
        if key not in known or key in taken or not known[key].accepts(value):
            continue
        before = reduce(getitem, key.split("."), read())
        if before == value:
            continue
        path = root() / "params.yaml"
        write_whole(path, edit.with_values(path.read_text(encoding="utf-8"), {key: value}))
        return {key: (
            f"{noted['reason']}\n\nGoing on with {key}: {value} instead of {before}. "
            "params.yaml says so now, so that dvc.lock records what was used.\n"
            "To go back: git checkout params.yaml dvc.lock metrics && make run\n"
        )}
    return {}
