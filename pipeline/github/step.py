"""How a step talks to its workflow: outputs, the job summary, files for later steps under scratch/."""

import os
import re
import shutil
from pathlib import Path

from pipeline import ROOT, Refused

SCRATCH = ROOT / "scratch"


def output(name: str, value: str) -> None:
    """Set an output of the step; outside of a workflow, print it."""
    if "\n" in value:
        raise Refused(f"The output {name} of a step must be one line.")
    if file := os.environ.get("GITHUB_OUTPUT"):
        with Path(file).open("a", encoding="utf-8") as outputs:
            outputs.write(f"{name}={value}\n")
    else:
        print(f"{name}={value}")


def summarise(text: str) -> None:
    """Add to the job summary, which takes 1 MiB a step; outside of a workflow, nothing happens."""
    if file := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(file).open("a", encoding="utf-8") as summary:
            summary.write(f"{text[:250_000]}\n")


def fresh(name: str) -> Path:
    """An empty folder scratch/NAME."""
    folder = SCRATCH / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def run_id() -> tuple[str, str]:
    """The workflow run's id and attempt."""
    found = os.environ.get("GITHUB_RUN_ID", "0"), os.environ.get("GITHUB_RUN_ATTEMPT", "1")
    if not all(re.fullmatch(r"[0-9]+", each) for each in found):
        raise Refused(f"GITHUB_RUN_ID and GITHUB_RUN_ATTEMPT must be numbers, found {found}.")
    return found
