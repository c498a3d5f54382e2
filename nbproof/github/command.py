"""`nbproof github STEP`: the steps of the workflows."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from nbproof.notebook.errors import Refused
from nbproof.notebook.files import root

app = typer.Typer(help="The steps of the workflows in .github/workflows.", no_args_is_help=True)
SLOTS = 20  # for pages: .github/actions/pages has a step for each
TESTS = "test ("  # how the names of the tests' jobs begin
ADDRESS = re.compile(r"https://[A-Za-z0-9.:-]+/[A-Za-z0-9._/-]+/actions/runs/[0-9]+/artifacts/[0-9]+")

# What a workflow knows comes by environment variables: no text of others stands in a shell's line.
Base = Annotated[str, typer.Option(envvar="BASE", help="Revision to compare with.")]
Sha = Annotated[str, typer.Option(envvar="HEAD_SHA", help="The run's commit.")]
Run = Annotated[int, typer.Option(envvar=["RUN_ID", "GITHUB_RUN_ID"], min=0, help="The run's id.")]
Attempt = Annotated[int, typer.Option(envvar="GITHUB_RUN_ATTEMPT", min=1)]


def fresh(name: str) -> Path:
    """An empty folder scratch/NAME."""
    folder = root() / "scratch" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def summarise(text: str) -> None:
    """Add to the job summary, which takes 1 MiB a step; outside of a workflow, nothing happens."""
    with Path(os.environ.get("GITHUB_STEP_SUMMARY") or os.devnull).open("a", encoding="utf-8") as summary:
        summary.write(f"{text[:250_000]}\n")


@app.command()
def pull(base: Base = "") -> None:
    """Bring what the DVC remote has, where one is configured."""
    from nbproof.github import results

    of_base, configuration = results.at(base), results.remote()
    try:
        print(f"From the DVC remote: {results.pull(of_base, configuration)} files fetched.")
    except Refused as refusal:
        print(f"{refusal} What is missing is made again.")


@app.command()
def run(force: Annotated[bool, typer.Option("--force", help="Run every stage again.")] = False) -> None:
    """Run the pipeline, keep what it prints for the report, and end as it ends."""
    command = [sys.executable, "-u", "-m", "nbproof", "run", "--no-remedy", *(["--force"] if force else [])]
    with (fresh("run") / "log").open("w", encoding="utf-8") as log, subprocess.Popen(
        command, cwd=root(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            log.write(line)
    raise typer.Exit(process.returncode)


@app.command()
def pages(base: Base = "", run: Run = 0, attempt: Attempt = 1) -> None:
    """Lay out the rendered notebooks for the upload, one a slot, those that differ from the base first."""
    from nbproof.github import results

    same = {path for path, _ in results.here().items() & results.at(base).items()}
    found = sorted((root() / "reports").glob("*.html"), key=lambda page: (f"reports/{page.name}" in same, page.name))
    folder = fresh("pages")
    for slot, page in enumerate(found[:SLOTS], 1):
        (folder / f"{slot:02}").mkdir()  # an artifact has its file's name, and a name can be used once in a run
        shutil.copyfile(page, folder / f"{slot:02}" / f"{page.stem}-{run}-{attempt}.html")
    if left := [page.stem for page in found[SLOTS:]]:
        print(f"There are {SLOTS} slots for pages; not uploaded on their own: {', '.join(left)}.")


def links(steps: str) -> dict[str, str]:
    """The address of each notebook's page, from the slots' steps: the JSON of the workflow's `steps` context."""
    found = {}
    for page in (root() / "scratch" / "pages").glob("*/*.html"):
        step = json.loads(steps or "{}").get(f"page{page.parent.name}", {})
        if ADDRESS.fullmatch(address := step.get("outputs", {}).get("artifact-url", "")):
            found[page.stem.rsplit("-", 2)[0]] = address
    return found


def tests_ended(api, sha: str, seconds: float) -> str | None:
    """passed, failed or cancelled: how the tests of commit `sha` ended, waited for at most `seconds`; None: unknown."""
    until = time.monotonic() + seconds
    while True:
        runs = api.pages(f"/commits/{sha}/check-runs?filter=latest", "check_runs")
        ends = {each["conclusion"] for each in runs if each["name"].startswith(TESTS)}
        if ends and None not in ends:  # None: one is still at work
            bad = ends - {"success", "neutral", "skipped"}
            return "passed" if not bad else "cancelled" if bad == {"cancelled"} else "failed"
        if time.monotonic() >= until:
            return None
        time.sleep(15)


@app.command()
def report(base: Base = "", sha: Sha = "", steps: Annotated[str, typer.Option(envvar="STEPS")] = "",
           wait: Annotated[float, typer.Option(help="Seconds to wait for the tests at most.")] = 0) -> None:
    """Write the report to scratch/report/report.md and add it to the job summary."""
    from nbproof.github.api import Answer, Api
    from nbproof.report import build, revision

    ended, log = None, root() / "scratch" / "run" / "log"
    try:
        ended = tests_ended(Api(), sha, wait) if sha else None
    except Answer as answer:
        print(f"GitHub does not say how the tests ended ({answer}).")
    outcome = log.read_text(encoding="utf-8") if log.exists() else ""
    text = build(base=revision.commit(root(), base), links=links(steps), tests=ended, outcome=outcome)
    (fresh("report") / "report.md").write_text(text, encoding="utf-8")
    summarise(text)


@app.command()
def results() -> None:
    """Lay out the outputs for the job that publishes them."""
    from nbproof.github import results

    results.lay_out(fresh("results"))


@app.command()
def post(report: Annotated[Path, typer.Option(help="The Markdown, which is not trusted.")], sha: Sha = "", run: Run = 0,
         number: Annotated[int, typer.Option(envvar="NUMBER", help="Which of several pull requests.")] = 0) -> None:
    """Make or update the comment on the pull request with this head."""
    from nbproof.github.api import Api
    from nbproof.github.post import post
    from nbproof.github.sanitise import sanitised

    api = Api()
    if not report.is_file() or report.is_symlink() or report.stat().st_size > 4_000_000:
        raise Refused(f"{report} is no regular file of at most 4 MB: the run gave no report to post.")
    repository = f"{api.server}/{api.repository}"
    allowed = (f"{repository}/actions/runs/{run}", f"{repository}/commit")
    text = sanitised(report.read_text(encoding="utf-8", errors="replace"), allowed)
    try:
        found = api.pull_request(sha, number)
        print(post(api, found["number"], text) if found else
              f"No open pull request has the head {sha[:8]} (closed, or newer commits came): nothing is posted.")
    except Refused as refusal:
        summarise(text)
        raise Refused(f"{refusal} The report is in the job's summary.") from None


@app.command()
def publish(results: Annotated[Path, typer.Option(help="The folder of results, which is not trusted.")],
            sha: Sha = "", run: Run = 0, event: Annotated[str, typer.Option(envvar="EVENT")] = "",
            default: Annotated[str, typer.Option(envvar="DEFAULT_BRANCH")] = "main") -> None:
    """Check a run's results, push them to the DVC remote, commit dvc.lock with what git keeps."""
    from nbproof.github.api import Api
    from nbproof.github.publish import CHECKS, branch_of, publish
    from nbproof.github.results import remote

    api = Api()
    target = branch_of(api, sha, event, default)
    if target is None:
        print(f"{sha[:8]} is no longer the head of a branch of this repository that is published: nothing to do.")
    elif publish(api, results, sha, *target, run, remote()):
        for workflow in CHECKS:
            api.call("POST", f"/actions/workflows/{workflow}/dispatches", {"ref": target[0]})
        print(f"Started on {target[0]}: {', '.join(CHECKS)}")


@app.command()
def retrain() -> None:
    """Compare the numbers of a run from nothing with the committed ones; fail where one moved beyond the tolerance."""
    from nbproof import project, stages
    from nbproof.github import results

    with stages.opened(root()) as repo:
        changed = repo.metrics.diff(a_rev="HEAD").get("diff", {})
    found = [(path, name, each["old"], each["new"]) for path, names in sorted(changed.items())
             for name, each in names.items() if str(each["old"]) != str(each["new"])]  # NaN is not equal to itself
    moves = [each for each in found if {type(each[2]), type(each[3])} & {int, float}]
    beyond = [f"{path} {name}" for path, name, old, new in moves
              if not {type(old), type(new)} <= {int, float} or not project.load().tolerance.holds(new, old)]
    same = "Every output is" if results.at("HEAD") == results.here() else "Not every output is"
    text = f"Trained again from nothing: {len(moves)} numbers moved, beyond the tolerance of project.yaml: " \
           f"{', '.join(beyond) or 'none'}. {same} the same, byte for byte.\n"
    table = [f"| `{path}` | {name} | {old} | {new} |\n" for path, name, old, new in moves]
    summarise(text + "".join(["\n| file | number | committed | now |\n|---|---|---:|---:|\n", *table] if table else []))
    print(text)
    raise typer.Exit(1 if beyond else 0)
