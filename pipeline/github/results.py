"""What a run made, laid out for the job that publishes it."""

import shutil
import subprocess
from pathlib import Path

from pipeline import ROOT, Refused
from pipeline.github import lock, step


def lay_out(root: Path = ROOT) -> Path:
    """scratch/results with dvc.lock and every output that it records; Refused where they would not belong to this commit."""
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml"], cwd=root).returncode != 0:
        raise Refused("The run changed params.yaml (no MNIST mirror could be reached): its results belong to no commit and are not published.")
    folder = step.fresh("results")
    for out in lock.here(root).values():
        source = root / out.path
        if not source.is_file():
            raise Refused(f"{out.path} is recorded in dvc.lock and missing: the run's results are not published.")
        (folder / out.path).parent.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / out.path)
    shutil.copyfile(root / "dvc.lock", folder / "dvc.lock")
    return folder


def differing(root: Path = ROOT) -> list[str]:
    """The outputs that the author committed with other bytes than this run made."""
    committed, now = lock.at("HEAD", root), lock.here(root)
    return sorted(path for path in committed.keys() | now.keys() if committed.get(path) != now.get(path))


def differences(root: Path = ROOT) -> str:
    """The same for the report, as one paragraph; empty where there is nothing to say."""
    paths = differing(root)
    if not paths or not lock.at("HEAD", root):
        return ""
    shown = ", ".join(f"`{path}`" for path in paths[:12]) + (f" and {len(paths) - 12} more" if len(paths) > 12 else "")
    noun = "1 output" if len(paths) == 1 else f"{len(paths)} outputs"
    return f"CI made {noun} with other bytes than the branch's `dvc.lock` records; where results are published, CI's take their place: {shown}."
