"""One stage as DVC starts it: its dependencies are checked, its notebook is executed, and nothing changed meanwhile."""

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

from dvc.stage import PipelineStage

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import dag, deps, reuse
from nbproof.runner import determinism, run_stage, secrets
from nbproof.sweep import cluster
from nbproof.tracking import remotes


def run(name: str, on_ray: bool = False) -> int:
    """Execute the notebook of the stage `name`; 0 if every cell ran and no dependency changed."""
    started = time.monotonic()
    stage, of_dvc, before, is_taken_over = dag.patiently(lambda: _prepared(name))
    if is_taken_over:
        print(f"{stage.short}: only its text changed, so its results stay as they are, "
              f"{time.monotonic() - started:.1f} s -> reports/{stage.short}.html", flush=True)
        return 0
    elsewhere = on_ray and dag.is_model(stage)
    code = cluster.run_stage(stage) if elsewhere else run_stage(root() / stage.notebook)
    leaked = _without_secrets(stage)  # also of a stage that failed: what it wrote before is still there
    return code or leaked or _unchanged(stage, before, dag.digests(of_dvc))


def _prepared(name: str) -> tuple[dag.Stage, PipelineStage, dict[str, object], bool]:
    """The stage, DVC's object of it, its dependencies' digests, and whether its earlier results are taken over."""
    with dag.opened(root()) as repo:
        found = dag.read(repo)
        stage = found.get(name) or next((each for each in found.values() if each.short == name), None)
        if stage is None or stage.notebook is None:
            raise UserError(f"dvc.yaml has no stage {name!r} that runs a notebook.")
        deps.check(stage)
        of_dvc = dag.dvc_stage(repo, stage.name)
        return stage, of_dvc, dag.digests(of_dvc), reuse.take_over(repo, stage)


def _without_secrets(stage: dag.Stage) -> int:
    """0 if no result holds the value of a secret that `nbproof secrets` knows; each file that does is removed."""
    known = [name for name in remotes.SECRETS if secrets.NAMES.search(name)]
    secrets = {name: os.environ[name].encode() for name in known if len(os.environ.get(name, "")) >= secrets.SHORTEST}
    paths, code = [root() / out.path for out in stage.outputs] if secrets else [], 0
    for file in [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]:
        if found := [name for name, value in secrets.items() if _holds(file, value)]:
            file.unlink()
            print(f"{stage.short}: {stage.notebook} failed: {file.relative_to(root()).as_posix()} held the value of "
                  f"{found[0]}, so it was not kept.", file=sys.stderr, flush=True)
            code = 1
    return code


def _holds(file: Path, value: bytes) -> bool:
    """Whether `value` is among the bytes of a file, which may be larger than the memory."""
    if not file.is_file() or not file.stat().st_size:
        return False
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(value) >= 0


def _unchanged(stage: dag.Stage, before: dict[str, object], after: dict[str, object]) -> int:
    """0 if the stage's dependencies are as they were `before` it ran: DVC hashes them after the command."""
    changed = sorted(path for path in before if before[path] != after[path])
    if not changed:
        return 0
    print(f"{stage.short}: {stage.notebook} failed: {', '.join(changed)} changed while the stage ran, so its results "
          "are of neither state. Run again.", file=sys.stderr, flush=True)
    return 1


def nbval(arguments: list[str]) -> int:
    """Execute the notebooks in reports/, or those named, again by nbval; its exit code, 1 where an output differs."""
    own = {"PYTHONPATH": str(root() / "notebooks"), "NBPROOF_EVENTS": os.devnull, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "-p", "no:cacheprovider"]
    variables = determinism.clean(dict(os.environ)) | own
    paths = [] if any(Path(each).exists() for each in arguments) else ["reports"]
    return subprocess.run([*command, *arguments, *paths], cwd=root(), env=variables).returncode
