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
