"""The whole graph in one process: DVC decides what changed and records what was made.

Notebooks and commands are executed in threads. Only the main thread touches DVC's objects.
"""

import concurrent.futures
import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial, reduce
from operator import getitem
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import lock_repo
from dvc.stage import PipelineStage
from dvc.stage.cache import RunCacheNotFoundError
from dvc.utils.serialize import modify_yaml
from filelock import FileLock, Timeout

from nbproof.notebook import params
from nbproof.notebook.errors import UserError, typed
from nbproof.notebook.files import root, write_whole
from nbproof.pipeline import compare, config, console, dag, deps, index, verdict
from nbproof.pipeline.dag import Stage
from nbproof.runner import determinism, html, reaper, schema

STOPPED = ("Stopped. Finished stages are kept: nbproof run goes on, and makes the results of the "
           "others, which are removed.")
BACKUP = ".dvc/tmp/dvc.lock"  # what dvc.lock was, while a stage is recorded
LOCKED_NAME = re.compile(r"(?m)^  ['\"]?([^\s'\"].*?)['\"]?:$")  # a stage's line in dvc.lock


def run_pipeline(jobs: int, force: bool, fallback: bool = True,
                 register: Callable[[], None] | None = None) -> int:
    """Bring every stage up to date, at most `jobs` at a time; return 0 if all is well.

    `force` executes all of them again without DVC's run-cache. `fallback` sets a parameter that a
    failed notebook proposes, and goes on; never in CI. `register` is called once all is well.
    """
    if jobs < 1:
        raise UserError(f"JOBS must be at least 1, found {jobs}.")
    with alone():
        run, sentence = Run(jobs, force), ""
        run.bring_up_to_date()
        # A result on other data than a review expects is no result.
        if fallback and not os.environ.get("CI") and (sentence := run.fall_back()):
            print(sentence, flush=True)
            run = Run(jobs, force)
            run.bring_up_to_date()
        return run.close(register, sentence)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Work in the project's folder; UserError where another run does. A torn dvc.lock is mended.

    The system releases the lock, however this process ends. Repo.commit looks for a stage in the
    current folder.
    """
    lock = root() / ".dvc" / "tmp" / "run.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0), contextlib.chdir(root()):
            restore_lock()
            try:
                yield
            finally:
                restore_lock()
    except Timeout:
        raise UserError("Another run is at work in this folder: wait for it to end, then run "
                        "again.") from None


class Run:
    """One pass over the graph. `failed` has the outcome of each stage that failed."""

    def __init__(self, jobs: int, force: bool):
        self.jobs, self.force, self.started = jobs, force, time.monotonic()
        self.stages: dict[str, Stage] = {}
        self.failed, self.changed, self.before = {}, set(), {}
        self.verdict = ""

    def bring_up_to_date(self) -> None:
        """Read the graph, check it, and execute what changed."""
        compare.announce()
        logging.getLogger("dvc").setLevel(logging.WARNING)  # no lines on each file
        with dag.opened(root()) as self.repo:
            self.repo.scm_context.quiet = True  # no advice on git add
            with lock_repo(self.repo):  # DVC parses its files again after each lock
                self.stages = dag.read(self.repo)
                check_all(self.stages)
                changed = self.stages if self.force else dag.changed(self.repo, self.stages)
                self.changed = dag.with_downstream(changed, self.stages)
                remove_torn(Path(self.repo.tmp_dir) / "rwlock")
            if self.changed:
                earlier = self.snapshot()
                with (reaper.session() as self.session, self.kernels(),
                      console.Screen(self.stages, self.changed) as self.screen,
                      concurrent.futures.ThreadPoolExecutor(1) as self.pages):
                    self.walk()
                self.verdict = "" if self.failed else verdict.of_run(earlier, self.stages)
            recorded = recorded_names()
            name_removed(recorded, self.stages)
            order_lock(recorded, list(self.stages))
            self.make_pages()

    def snapshot(self) -> verdict.Side:
        """Return the models as they are before the run; none where they are of other data."""
        key = config.load().data
        if key and dag.recorded_value(self.repo, key) != config.data_value():
            return verdict.Side({})
        return verdict.snapshot(self.stages)

    def kernels(self) -> contextlib.AbstractContextManager:
        """Return what forks kernels from one server, where that pays: see runner.forkserver."""
        notebooks = [name for name in self.changed if self.stages[name].notebook]
        is_emulated = os.name == "nt" or "NBPROOF_EMULATOR" in os.environ
        if not config.load().preload or len(notebooks) < 3 or is_emulated:
            return contextlib.nullcontext()
        from nbproof.runner import forkserver

        environment = determinism.environment(root()) | {reaper.MARK: self.session.mark()}
        return forkserver.serving(config.load().preload, environment)

    def walk(self) -> None:
        """Execute the changed stages, each once what it needs is there."""
        self.pages.submit(html.prepare)  # while kernels start
        waiting = [name for name in self.stages if name in self.changed]
        running: dict[concurrent.futures.Future, str] = {}
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            try:
                while waiting or running:
                    blocked = dag.with_downstream(set(self.failed), self.stages)
                    waiting = [name for name in waiting if name not in blocked]
                    unfinished = {*waiting, *running.values()}
                    ready = [name for name in waiting if not self.stages[name].needs & unfinished]
                    # A story goes from the simple to the costly: with that first, all end sooner.
                    for name in ready[::-1][: self.jobs - len(running)]:
                        waiting.remove(name)
                        if execute := self.prepare(name):
                            running[pool.submit(execute)] = name
                    done, _ = concurrent.futures.wait(
                        running, return_when=concurrent.futures.FIRST_COMPLETED)
                    for future in done:
                        self.finish(running.pop(future), future)
            except BaseException:  # Ctrl-C above all: what was started ends
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                while concurrent.futures.wait(running, timeout=0.2).not_done:
                    self.session.end()
                for name in running.values():
                    self.screen.note(name, state="stopped")
                self.screen.line(typed(STOPPED))
                raise

    def prepare(self, name: str) -> Callable | None:
        """Return what executes a stage, with its outputs removed; None where it need not run."""
        from nbproof.pipeline import reuse
        from nbproof.pipeline.stage import Outcome

        stage = self.stages[name]
        with lock_repo(self.repo):
            dvc_stage = dag.dvc_stage(self.repo, name)
            missing = [dep.def_path for dep in dvc_stage.deps if not dep.exists]
            if missing:
                self.failed[name] = Outcome(f"{stage.short}: {missing[0]}, which it depends on, is "
                                            "missing.")
                self.screen.note(name, state="failed")
                return None
            if not self.force:
                prose = reuse.only_notebook_differs(stage, dvc_stage)
                if not dvc_stage.changed() or prose and reuse.is_recorded_source(stage, dvc_stage):
                    self.screen.note(name, state="done")
                    return None
                if prose and reuse.take_over(stage):
                    return self.record(name, "only its prose changed, so its results stay")
            refuse_strangers(stage, dvc_stage)
            dvc_stage.remove_outs()
            if not self.force and self.restored(dvc_stage):
                return self.record(name, "its results come from DVC's run-cache")
            self.before[name] = dag.digests(dvc_stage)
        self.screen.note(name, state="runs")
        return partial(self.execute, stage, dvc_stage.cmd)

    def restored(self, dvc_stage: PipelineStage) -> bool:
        """Take the results from DVC's run-cache; return whether it has them."""
        try:
            self.repo.stage_cache.restore(dvc_stage)
            return True
        except RunCacheNotFoundError:
            return False

    def execute(self, stage: Stage, command: str | list[str]):
        """Execute a notebook or a command, in a thread of the pool; return the outcome."""
        from nbproof.pipeline.stage import Outcome, execute

        if stage.notebook:
            return execute(stage, self.session, partial(self.show, stage), self.stages.values())
        mark = {reaper.MARK: self.session.mark(stage.name), "DVC_STAGE": stage.name}
        environment = determinism.tool_environment() | mark | {"DVC_ROOT": str(root())}
        for line in [command] if isinstance(command, str) else command:
            code = self.run_command(stage, line, environment)
            if code:
                return Outcome(f"{stage.short}: `{line}` failed with exit code {code}; what it "
                               "printed is above.")
        return Outcome()

    def run_command(self, stage: Stage, line: str, environment: dict[str, str]) -> int:
        """Run an ordinary command of dvc.yaml, show what it prints; return its exit code."""
        with subprocess.Popen(  # noqa: S602 - a command of dvc.yaml is a shell's, as DVC runs it
            line, shell=True, cwd=root(), env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        ) as process:
            for printed in process.stdout:
                self.screen.line(f"{stage.short}: {printed.rstrip()}")
        return process.returncode

    def show(self, stage: Stage, event: dict) -> None:
        """Show an event of a notebook: a row of the table, or a line."""
        if "message" in event:
            self.screen.line(f"{stage.short}: {event['message']}")
        elif "step" in event or "cell" in event:
            self.screen.note(stage.name, **event)

    def finish(self, name: str, future: concurrent.futures.Future) -> None:
        """Record a stage that ended well; note the outcome of one that failed."""
        from nbproof.pipeline.stage import Outcome, edited

        stage, dvc_stage = self.stages[name], dag.dvc_stage(self.repo, name)
        try:
            outcome = future.result()
        except UserError as error:
            outcome = Outcome(str(error))
        reason = outcome.reason or edited(stage, self.before[name], dag.digests(dvc_stage))
        if not reason:
            try:
                self.record(name)
            except (DvcException, OSError) as error:
                reason = f"{stage.short}: its results could not be recorded: {error}"
        if reason:
            self.failed[name] = Outcome(reason, outcome.fallback)
            self.screen.note(name, state="failed")
            self.draw(stage)

    def record(self, name: str, why: str = "") -> None:
        """Have DVC hash, keep and record what a stage made; its page is made beside the run."""
        stage = self.stages[name]
        for path in stage.outputs:
            remove_empty_folders(root() / path)
        restore_lock()  # where recording another stage failed
        lock, backup = root() / "dvc.lock", root() / BACKUP
        backup.write_bytes(lock.read_bytes() if lock.exists() else b"")
        self.repo.commit(name, force=True)
        backup.unlink()
        self.screen.note(name, state="done")
        if why:
            self.screen.line(f"{stage.short}: {why}")
        self.draw(stage)

    def draw(self, stage: Stage) -> None:
        """Make the page of a stage, in a thread of its own."""
        if stage.notebook and (root() / "reports" / f"{stage.short}.ipynb").exists():
            self.pages.submit(html.write, stage.short, (root() / stage.notebook).parent,
                              index.pages(self.stages))

    def make_pages(self) -> None:
        """Make the pages that are missing or of another notebook, and the index."""
        index.write_pages(self.stages)
        if self.changed or not index.is_current():
            blocked = dag.with_downstream(set(self.failed), self.stages)
            reasons = {name: outcome.reason for name, outcome in self.failed.items()}
            index.write(self.stages, reasons, blocked - set(self.failed), self.verdict)

    def fall_back(self) -> str:
        """Set the parameter that a failed notebook proposes; return what to tell of it.

        Empty where none is proposed, or one that its notebook does not accept or has already.
        """
        for name, outcome in self.failed.items():
            key, value = outcome.fallback.get("parameter"), outcome.fallback.get("value")
            notebook = self.stages[name].notebook
            declared = schema.declared(root() / notebook).values() if notebook else ()
            if (any(parameter.key == key and parameter.accepts(value) for parameter in declared)
                    and params.value(key) != value):
                return set_parameter(key, value, outcome.reason)
        return ""

    def close(self, register: Callable[[], None] | None, sentence: str) -> int:
        """Print the results, or what failed; return the exit code."""
        if self.failed:
            blocked = dag.with_downstream(set(self.failed), self.stages) - set(self.failed)
            names = ", ".join(self.stages[name].short for name in self.failed)
            not_run = ", ".join(sorted(self.stages[name].short for name in blocked))
            print(f"Failed: {names}." + (f" Not run: {not_run}." if not_run else ""),
                  file=sys.stderr)
            reasons = [typed(outcome.reason) for outcome in self.failed.values()]
            print(*reasons, sep="\n", file=sys.stderr)
            return 1
        results = [index.table(self.stages), self.verdict] if self.changed else []
        for text in filter(None, results):
            print(text, flush=True)
        if register:
            register()
        seconds = f"Done in {time.monotonic() - self.started:.0f} s."
        done = seconds if self.changed else "Everything is up to date."
        page = root() / index.PLACE
        shown = page.as_uri() if sys.stdout.isatty() else index.PLACE
        print(f"{done} The result: {shown}", flush=True)
        for line in filter(None, [*compare.compared(self.stages), sentence]):
            print(line)
        return 0


def check_all(stages: dict[str, Stage]) -> None:
    """Check params.yaml, and each notebook and what dvc.yaml lists for it, before anything runs."""
    run_notebooks = [stage for stage in stages.values() if stage.notebook]
    names = [stage.short for stage in run_notebooks]
    for stage in run_notebooks:
        if names.count(stage.short) > 1:
            raise UserError(f"dvc.yaml: two stages write reports/{stage.short}.ipynb: give each a "
                            "notebook of its own, or values in its command (nbproof stage a=1).")
        if dag.is_model(stage) and not re.fullmatch(r"[A-Za-z]\w*", stage.short):
            raise UserError(f"A model cannot be called {stage.short}: a name has letters, digits "
                            "and _, a letter first. Rename it in params.yaml and its notebook.")
        schema.values_of(root() / stage.notebook, stage.values)
    schema.check_known([root() / stage.notebook for stage in run_notebooks])
    for stage in stages.values():
        if stage.notebook:
            deps.check(stage)
    deps.check_sources(stages.values())
    config.data_value()
    judge = config.load().compare
    if judge and judge not in {stage.short for stage in stages.values()}:
        raise UserError(f"project.yaml: compare is {judge}, and dvc.yaml has no such stage.")


def refuse_strangers(stage: Stage, dvc_stage: PipelineStage) -> None:
    """Raise UserError where a folder of results also holds a file that a run would delete."""
    for out in dvc_stage.outs:
        tree = out.get_obj() if out.exists and out.hash_info and out.hash_info.isdir else None
        if tree is None:
            continue
        folder = Path(out.fs_path)
        recorded = {folder.joinpath(*key) for key, _, _ in tree}
        present = {path for path in folder.rglob("*") if path.is_file()}
        # Where recorded files are missing, a stage that failed or was killed left the others.
        strangers = sorted(present - recorded) if recorded <= present else []
        for path in strangers:
            if not out.repo.dvcignore.is_ignored_file(str(path)):
                raise UserError(f"{path.relative_to(root()).as_posix()} is no result of "
                                f"{stage.short}, and running that would delete it: move it out of "
                                f"{out.def_path}, then run again.")


def remove_empty_folders(path: Path) -> None:
    """Remove the empty folders of an output, which DVC would not bring back on checkout."""
    if path.is_dir():
        for folder in sorted(filter(Path.is_dir, path.rglob("*")), reverse=True):
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def set_parameter(key: str, value: object, reason: str) -> str:
    """Set `key` of params.yaml; return the sentence that says so, and the way back."""
    *sections, name = key.split(".")
    before = params.value(key)
    with modify_yaml(str(root() / "params.yaml")) as content:
        reduce(getitem, sections, content)[name] = value
    way_back = typed("git checkout params.yaml dvc.lock metrics && nbproof run")
    return (f"{reason}\n\nGoing on with {key}: {value} instead of {before}. params.yaml has the "
            f"new value, so that dvc.lock records what was used.\nTo go back: {way_back}\n")


def restore_lock() -> None:
    """Bring dvc.lock back where a kill or Ctrl-C came while DVC, which writes it in place, did."""
    backup = root() / BACKUP
    if backup.exists():
        content = backup.read_bytes()
        if content:
            write_whole(root() / "dvc.lock", content)
        else:
            (root() / "dvc.lock").unlink(missing_ok=True)
        backup.unlink()


def remove_torn(path: Path) -> None:
    """Remove DVC's list of who reads and writes what, if a kill left a part: DVC refuses that."""
    with contextlib.suppress(FileNotFoundError):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            path.unlink()


def recorded_names() -> list[str]:
    """Return the stages of dvc.lock in their order. (Parsing it takes a third of a second.)"""
    lock = root() / "dvc.lock"
    return LOCKED_NAME.findall(lock.read_text(encoding="utf-8")) if lock.exists() else []


def order_lock(recorded: list[str], names: list[str]) -> None:
    """Give dvc.lock the order of dvc.yaml: DVC appends stages in the order in which they end."""
    order = {name: number for number, name in enumerate(names)}
    wanted = sorted(recorded, key=lambda name: order.get(name, len(order)))
    if wanted != recorded:
        with modify_yaml(str(root() / "dvc.lock")) as content:
            for name in wanted:
                content["stages"][name] = content["stages"].pop(name)


def name_removed(recorded: list[str], stages: dict[str, Stage]) -> None:
    """Print which stages dvc.lock still records and dvc.yaml no longer has."""
    removed = [name for name in recorded if name not in stages]
    if removed:
        print(f"No longer in dvc.yaml: {', '.join(removed)}. Their results and their entries in "
              "dvc.lock stay; delete them by hand, and `dvc gc --workspace` empties the cache.")
