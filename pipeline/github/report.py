"""The report of a run: `python -m pipeline report` with what only a workflow knows, written for the poster and into the job summary."""

import json
import subprocess
import sys
import time
from pathlib import Path

from pipeline import ROOT, Refused
from pipeline.github import step
from pipeline.github.api import Answer, Api

TESTS = "test ("  # how the names of the tests' jobs begin
LOG = step.SCRATCH / "run.log"  # what the pipeline printed


def known(base: str) -> str:
    """`base` as a commit of this checkout, or nothing: a first push has no commit before it."""
    found = subprocess.run(["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip() if base and found.returncode == 0 else ""


def run(force: bool) -> int:
    """Run the pipeline, show what it prints and keep it for the report; its exit code."""
    step.SCRATCH.mkdir(exist_ok=True)
    command = [sys.executable, "-u", "-m", "pipeline", "run", *(["--force"] if force else [])]
    with LOG.open("w", encoding="utf-8") as log, subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            log.write(line)
    return process.returncode


def tests(api: Api, sha: str, seconds: float, every: float = 15) -> str:
    """passed, failed or cancelled: how the tests of commit `sha` ended, waited for at most `seconds`; nothing where that is not known."""
    until = time.monotonic() + seconds
    while True:
        try:
            runs = [each for each in api.pages(f"/commits/{sha}/check-runs?filter=latest", "check_runs") if each["name"].startswith(TESTS)]
        except Answer as answer:
            print(f"How the tests ended cannot be asked ({answer}).")
            return ""
        if runs and all(each["status"] == "completed" for each in runs):
            ends = {each["conclusion"] for each in runs}
            return "passed" if ends <= {"success", "neutral", "skipped"} else "cancelled" if "cancelled" in ends and "failure" not in ends else "failed"
        if time.monotonic() >= until:
            return ""
        time.sleep(every)


def write(base: str, ended: str, links: dict[str, str]) -> Path:
    """scratch/report/report.md, also added to the job summary."""
    folder = step.fresh("report")
    (folder / "links.json").write_text(json.dumps(links), encoding="utf-8")
    file = folder / "report.md"
    command = [sys.executable, "-m", "pipeline", "report", "--links", str(folder / "links.json"), "--out", str(file)]
    command += ["--base", base] if base else []
    command += ["--tests", ended] if ended else []
    command += ["--outcome", str(LOG)] if LOG.exists() else []
    code = subprocess.run(command, cwd=ROOT).returncode
    if not file.exists():
        raise Refused(f"The report could not be written (exit code {code}); the lines above say why.")
    step.summarise(file.read_text(encoding="utf-8"))
    return file
