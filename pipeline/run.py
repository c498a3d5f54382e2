"""The whole pipeline: every stage that DVC calls changed, independent ones at the same time."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
from dvc.repo import Repo
from dvc.utils.serialize import modify_yaml
from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from pipeline import ROOT, Refused, sync
from pipeline.environment import with_tools
from pipeline.registry import promote_once
from pipeline.stage import parameters, source
from pipeline.stage.files import write_whole
from pipeline.sweep import space
from pipeline.verify import heal_cache, heal_run_cache, opened

# When a notebook ends with this error, this value takes the place of the one in params.yaml, and the run goes on.
FALLBACKS = {"MirrorsUnreachable": ("data", "source", "digits")}


def run(jobs: int, force: bool) -> int:
    """Bring every stage up to date, at most `jobs` at a time; `force` runs all of them again without DVC's run-cache. 0 if all is well."""
    if jobs < 1:
        raise Refused(f"JOBS must be at least 1, found {jobs}.")
    lock = ROOT / ".dvc" / "tmp" / "run.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):  # the system releases it, however this process ends
            return _run(jobs, force)
    except Timeout:
        raise Refused("Another run is at work in this folder: wait for it to end, then run again.") from None


def _run(jobs: int, force: bool) -> int:
    started = time.monotonic()
    check_all()
    with opened(ROOT) as repo:
        forget_removed(repo)
        healed = heal_cache(repo)
        upstream = graph(repo)
        changed = set(upstream) if force else with_downstream(set(repo.status()), upstream)
        if changed and not force:
            healed += heal_run_cache(repo, changed)
    for sentence in healed:
        print(sentence, flush=True)
    if not changed:
        order_lock(list(upstream))  # plain `dvc repro` may have appended
        print("Everything is up to date. The result: reports/compare.html")
        _after()
        return 0
    failed = execute(changed, upstream, jobs, force)
    order_lock(list(upstream))
    if failed and (switched := fall_back(failed)):
        print(switched, flush=True)
        return _run(jobs, force)
    if failed:
        not_run = sorted(short(name) for name in with_downstream(set(failed), upstream) - set(failed))
        print(f"Failed: {', '.join(map(short, failed))}." + (f" Not run: {', '.join(not_run)}." if not_run else ""), file=sys.stderr)
        for reason in failed.values():
            print(reason, file=sys.stderr)
        return 1
    print(f"Done in {time.monotonic() - started:.0f} s. The result: reports/compare.html", flush=True)
    _after()
    return 0


def _after() -> None:
    """The comparison stands: its champion is registered, and what no server has yet is named."""
    promote_once()
    if sync.waiting():
        print("Runs that the tracking store did not take are kept in unsent/: make sync sends them.")


def check_all() -> None:
    """Strip every notebook and check every section of params.yaml, before anything runs."""
    values = parameters.read(ROOT / "params.yaml")
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        source.strip_file(notebook)
    for name in [*parameters.models(values), *(key for key in values if key not in ("models", "sweep"))]:
        parameters.checked(name)
    space.check_all()


def short(name: str) -> str:
    """The notebook's name of a stage: `cnn` of `train@cnn`."""
    return name.rpartition("@")[2]


def graph(repo: Repo) -> dict[str, set[str]]:
    """For each stage, in the order of dvc.yaml and params.yaml, the stages it needs."""
    edges = repo.index.graph
    return {stage.addressing: {needed.addressing for needed in edges.successors(stage)} for stage in repo.index.stages}


def with_downstream(names: set[str], upstream: dict[str, set[str]]) -> set[str]:
    """`names` and every stage that needs one of them, directly or not."""
    found = set(names) & set(upstream)
    while more := {name for name, needed in upstream.items() if name not in found and needed & found}:
        found |= more
    return found


def forget_removed(repo: Repo) -> None:
    """Take stages that dvc.yaml no longer has out of dvc.lock, and their outputs off the disk, so that nothing reads them."""
    lock = ROOT / "dvc.lock"
    if not lock.exists():
        return
    current = {stage.addressing for stage in repo.index.stages}
    kept = {out.fs_path for stage in repo.index.stages for out in stage.outs}
    recorded = YAML(typ="safe").load(lock.read_text(encoding="utf-8"))["stages"]
    removed = [name for name in recorded if name not in current]
    for name in removed:
        for out in recorded[name].get("outs", []):
            path = ROOT / out["path"]
            if str(path) not in kept and path.resolve().is_relative_to(ROOT):
                path.unlink(missing_ok=True)
        print(f"{short(name)} is no longer in params.yaml: its results are removed from the folder (DVC's cache and git keep them).", flush=True)
    if removed:
        with modify_yaml(str(lock)) as content:
            for name in removed:
                del content["stages"][name]


def order_lock(names: list[str]) -> None:
    """Give dvc.lock the order of dvc.yaml: DVC appends new stages as they end, which varies when they run side by side."""
    path = ROOT / "dvc.lock"
    if not path.exists():
        return
    place = {name: number for number, name in enumerate(names)}
    recorded = list(YAML(typ="safe").load(path.read_text(encoding="utf-8")).get("stages", {}))
    if (right := sorted(recorded, key=lambda name: place.get(name, len(place)))) != recorded:
        with modify_yaml(str(path)) as content:
            for name in right:
                content["stages"][name] = content["stages"].pop(name)


def execute(names: set[str], upstream: dict[str, set[str]], jobs: int, force: bool) -> dict[str, str]:
    """Run the stages `names`, each once what it needs is there; what failed, with the last words of each."""
    waiting, failed = [name for name in upstream if name in names], {}
    commands = Commands(force)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running: dict[concurrent.futures.Future, str] = {}
        try:
            while waiting or running:
                blocked = with_downstream(set(failed), upstream)
                waiting = [name for name in waiting if name not in blocked]
                for name in [name for name in waiting if not upstream[name] & {*waiting, *running.values()}]:
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


class Commands:
    """The `dvc repro` processes of one run. `force` repeats every stage without DVC's run-cache."""

    def __init__(self, force: bool):
        self.options = ["--force", "--no-run-cache"] if force else []
        self.guard, self.ended, self.processes = threading.Lock(), False, set()

    def reproduce(self, name: str) -> tuple[int, str]:
        """`dvc repro` of one stage alone; its exit code and, if it failed, its last words. What the stage says is shown as it comes."""
        # Siblings wait for each other's short lock; without the flag one that commits makes the others fail after their work.
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", *self.options, name]
        environment = with_tools() | {"STARTED_BY": str(os.getpid()), "PYTHONUNBUFFERED": "1"}
        with self.guard:
            if self.ended:
                return 130, f"{short(name)}: interrupted"
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
            self.processes.add(process)
        words, failure = [], ""
        with process:
            for line in map(str.rstrip, process.stdout):
                if line.startswith(f"{short(name)}: notebooks/"):  # that is said once, at the end
                    failure = line
                elif line.startswith(f"{short(name)}: "):
                    print(line, flush=True)
                    words.append(line)
                elif line and not line.startswith(("Running stage ", "> python -m pipeline stage", "ERROR: failed to reproduce ")):
                    words.append(line)
        with self.guard:
            self.processes.discard(process)
        if process.returncode == 0:
            return 0, ""
        return process.returncode, failure or "\n".join([f"{short(name)}: DVC could not run it:", *words[-15:]])

    def end(self) -> None:
        """End every process that is still at work: those that Ctrl-C reached leave by themselves, the others are asked, then killed."""
        with self.guard:
            self.ended = True
            family = [each for process in self.processes for each in _family(process.pid)]
        stages = [each for each in family if each.pid not in {process.pid for process in self.processes}]
        _, stages = psutil.wait_procs(stages, timeout=2)
        for each in stages:
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


def fall_back(failed: dict[str, str]) -> str:
    """Where a failed notebook named an error with a fallback, set it in params.yaml; what to tell the person, or nothing."""
    for name in failed:
        report = ROOT / "reports" / f"{short(name)}.ipynb"
        error = source.read(report)["metadata"].get("failure", {}) if report.exists() else {}
        if error.get("error") not in FALLBACKS:
            continue
        section, key, value = FALLBACKS[error["error"]]
        path, yaml = ROOT / "params.yaml", YAML()
        yaml.preserve_quotes = True
        content = yaml.load(path.read_text(encoding="utf-8"))
        before = content[section][key]
        if before == value:
            continue
        content[section][key] = value
        _dump(yaml, content, path)
        return (
            f"{error['reason']}\n\nGoing on with {section}.{key}: {value} instead of {before}, which params.yaml now says, so that "
            f"dvc.lock records what was really used.\nTo go back: git checkout params.yaml dvc.lock metrics && make run\n"
        )
    return ""


def _dump(yaml: YAML, content, path: Path) -> None:
    import io

    text = io.StringIO()
    yaml.dump(content, text)
    write_whole(path, text.getvalue())
