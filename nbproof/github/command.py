"""`nbproof github STEP`: the steps of the workflows."""

import hashlib
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Annotated

import typer

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root

app = typer.Typer(help="Setting up GitHub (setup), and the steps of the workflows.", no_args_is_help=True)
UNREVIEWED = ["--no-register"]  # what nobody reviewed has no say in a registry; `retrain` runs main from nothing
SLOTS = 20  # for pages: .github/actions/pages has a step for each
MODEL, TRIED = re.compile(r"models/[^/]+\.onnx"), 3  # models with a page to try, at most: each has megabytes
TESTS = "test ("  # how the names of the tests' jobs begin
TESTS_SAY = {"passed": "passed", "failed": "**failed**", "cancelled": "cancelled", "unknown": "unknown",
             None: "not ended yet"}
CML = "https://github.com/iterative/cml/releases/download/v0.20.6/cml-linux-x64"
ADDRESS = re.compile(r"https://[A-Za-z0-9.:-]+/[A-Za-z0-9._/-]+/actions/runs/[0-9]+/artifacts/[0-9]+")


def left(revision: str) -> str:
    """The commit where this branch left `revision`; empty where git has no such commit: a first push, a forced one."""
    from nbproof.review.base import base_of, commit

    return (commit(root(), revision) and base_of(root(), revision)) or ""


# What a workflow knows comes by environment variables: no text of others stands in a shell's line.
Base = Annotated[str, typer.Option(envvar="BASE", callback=left, help="The revision that this branch left.")]
Sha = Annotated[str, typer.Option(envvar="HEAD_SHA", help="The run's commit.")]
Run = Annotated[int, typer.Option(envvar=["RUN_ID", "GITHUB_RUN_ID"], min=0, help="The run's id.")]
Pages = Annotated[str, typer.Option(envvar="PAGES_URL", help="Where main's pages are published.")]
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
def setup(check: Annotated[bool, typer.Option("--check", help="Only say what is set and what is missing.")] = False,
          yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; set what needs no value.")] = False) -> None:
    """Set a repository up for the workflows, step by step (needs GitHub's `gh`)."""
    from nbproof.github import setup

    raise typer.Exit(setup.setup(check, yes))


@app.command()
def pull(base: Base = "") -> None:
    """Bring what the DVC remote has, where one is configured."""
    from nbproof.github import results

    of_base, configuration = results.at(base), results.remote()
    why = ""
    try:
        print(f"From the DVC remote: {results.pull(of_base, configuration)} files fetched.")
    except UserError as refusal:
        print(f"{refusal} What is missing is made again.")
        why = str(refusal) if configuration else ""
    (fresh("pull") / "why").write_text(why, encoding="utf-8")  # the report says it


@app.command()
def run(force: Annotated[bool, typer.Option("--force", help="Run every stage again.")] = False) -> None:
    """Run the pipeline, keep what it prints for the report, and end as it ends."""
    command = [sys.executable, "-u", "-m", "nbproof", "run", "--no-fallback", *(["--force"] if force else UNREVIEWED)]
    with (fresh("run") / "log").open("w", encoding="utf-8") as log, subprocess.Popen(
        command, cwd=root(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            log.write(line)
    raise typer.Exit(process.returncode)


@app.command("try")
def try_(base: Base = "", event: Annotated[str, typer.Option(envvar="GITHUB_EVENT_NAME")] = "") -> None:
    """Write the pages that ask a model in the browser: of the models that changed, on a push of the champion, too."""
    from nbproof.github import results
    from nbproof.pipeline import config
    from nbproof.serve import trypage

    contract = config.load()
    if not contract.page:
        print(f"{config.CONTRACT} names no page (serve: page): there is nothing to try.")
        return
    now, before = results.here(), results.at(base)
    names = [Path(path).stem for path in now if MODEL.fullmatch(path) and now[path] != before.get(path)]
    if event == "push" and (champion := contract.compared().get("champion")) and champion not in names:
        names.insert(0, champion)
    for name in names[:TRIED]:
        trypage.try_page(name)
    if not names:
        print("No model changed: there is nothing to try.")


@app.command()
def pages(base: Base = "", run: Run = 0, attempt: Attempt = 1) -> None:
    """Lay out the pages for the upload, one a slot: before and after, then notebooks, those that differ first."""
    from nbproof.github import results
    from nbproof.review import write_changes

    write_changes(base)
    same = {path for path, _ in results.here().items() & results.at(base).items()}
    pages = [page for page in (root() / "reports").glob("*.html") if page.name != "index.html"]  # links lead nowhere
    found = sorted(pages, key=lambda page: (page.stem != "changes", f"reports/{page.name}" in same, page.name))
    folder = fresh("pages")
    for slot, page in enumerate(found[:SLOTS], 1):
        (folder / f"{slot:02}").mkdir()  # an artifact has its file's name, and a name can be used once in a run
        shutil.copyfile(page, folder / f"{slot:02}" / f"{page.stem}-{run}-{attempt}.html")
    if left := [page.stem for page in found[SLOTS:]]:
        print(f"There are {SLOTS} slots for pages; not uploaded on their own: {', '.join(left)}.")
    with Path(os.environ.get("GITHUB_OUTPUT") or os.devnull).open("a", encoding="utf-8") as output:
        output.write(f"count={len(found[:SLOTS])}\n")


def links(steps: str) -> dict[str, str]:
    """The address of each notebook's page, from the slots' steps: the JSON of the workflow's `steps` context."""
    found = {}
    for page in (root() / "scratch" / "pages").glob("*/*.html"):
        step = json.loads(steps or "{}").get(f"page{page.parent.name}", {})
        if ADDRESS.fullmatch(address := step.get("outputs", {}).get("artifact-url", "")):
            found[page.stem.rsplit("-", 2)[0]] = address
    return found


def tests_ended(api, sha: str, seconds: float) -> str | None:
    """How the tests of commit `sha` ended, a key of TESTS_SAY, waited for at most `seconds`; None: they did not yet."""
    from nbproof.github.api import Answer

    until = time.monotonic() + seconds
    while True:
        try:
            runs = [*api.pages(f"/commits/{sha}/check-runs?filter=latest", "check_runs")]
        except Answer as answer:
            print(f"GitHub does not say how the tests ended ({answer}).")
            return "unknown"
        ends = {each["conclusion"] for each in runs if each["name"].startswith(TESTS)}
        if ends and None not in ends:  # None: one is still at work
            bad = ends - {"success", "neutral", "skipped"}
            return "passed" if not bad else "cancelled" if bad == {"cancelled"} else "failed"
        if time.monotonic() >= until:
            return None
        time.sleep(15)


@app.command()
def report(base: Base = "", steps: Annotated[str, typer.Option(envvar="STEPS")] = "", run: Run = 0,
           event: Annotated[str, typer.Option(envvar="GITHUB_EVENT_NAME")] = "", pages_url: Pages = "") -> None:
    """Write the report to scratch/report/report.md and add it to the job summary."""
    from nbproof.review import build

    log = root() / "scratch" / "run" / "log"
    outcome = log.read_text(encoding="utf-8") if log.exists() else ""
    of_main = {"main": f"{pages_url.rstrip('/')}/index.html"} if pages_url else {}
    text = build(base, links(steps) | of_main, outcome, str(run or ""), final=event == "push")
    (fresh("report") / "report.md").write_text(text, encoding="utf-8")
    summarise(text)


@app.command()
def results() -> None:
    """Lay out the outputs for the job that publishes them."""
    from nbproof.github import results

    results.lay_out(fresh("results"))


@app.command()
def keep() -> None:
    """Keep what main's run made for the pull requests: dvc.lock, and the outputs that DVC's cache does not have."""
    from nbproof.github import results

    results.keep(fresh("main"))


@app.command()
def site() -> None:
    """Pack main's pages with their index for GitHub Pages."""
    reports = root() / "reports"
    if not (reports / "index.html").exists():
        raise UserError("reports/index.html is not there, which nbproof run writes: run first.")
    with tarfile.open(fresh("site") / "artifact.tar", "w") as packed:
        for page in sorted(reports.rglob("*.html")):
            if page != reports / "changes.html":
                packed.add(page, page.relative_to(reports).as_posix())


@app.command()
def computed(name: Annotated[str, typer.Option(envvar="PLACE", help="Names this machine.")] = "here") -> None:
    """Write what this processor computed to scratch/computed/NAME.json: its name, its arithmetic, a hash of all."""
    from nbproof.github import results
    from nbproof.runner import determinism

    rows = "".join(f"{path} {md5}\n" for path, md5 in sorted(results.here().items()))
    said = {"processor": _processor(), "arithmetic": determinism.machine(),
            "results": hashlib.sha256(rows.encode()).hexdigest()}
    (fresh("computed") / f"{name}.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    print(", ".join(f"{key}: {value}" for key, value in said.items()))


def _processor() -> str:
    cpu = Path("/proc/cpuinfo")
    names = re.findall(r"(?m)^model name\s*: (.+)$", cpu.read_text(encoding="utf-8")) if cpu.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


@app.command()
def same(folder: Annotated[Path, typer.Option(help="The files that `computed` wrote on each machine.")]) -> None:
    """Compare what processors computed; fails where two with the same arithmetic have other bytes."""
    found = [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.rglob("*.json"))]
    hashes: dict[str, set[str]] = {}
    for _, said in found:
        hashes.setdefault(said["arithmetic"], set()).add(said["results"])
    rows = ["| {} | {processor} | {arithmetic} | `{results}` |".format(name, **said) for name, said in found]
    table = "\n".join(["| runner | processor | arithmetic | results |", "|---|---|---|---|", *rows])
    other = [name for name, different in hashes.items() if len(different) > 1]
    verdict = f"Not the same bytes: {', '.join(other)}." if other else f"The same bytes on {len(found)} machines."
    summarise(f"{verdict}\n\n{table}\n")
    print(f"{table}\n{verdict}")
    raise typer.Exit(1 if other or not found else 0)


@app.command()
def take(run: Annotated[int, typer.Argument(min=1, help="The run's id, the number in its address.")]) -> None:
    """Bring the results of a run into this checkout of its branch, checked, to be committed (needs GitHub's `gh`)."""
    from nbproof.github import results

    folder = fresh("taken")
    command = ["gh", "run", "download", str(run), "--name", "results", "--dir", str(folder)]
    try:
        done = subprocess.run(command, cwd=root(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except FileNotFoundError:
        raise UserError("The results come by GitHub's program gh: install it (https://cli.github.com).") from None
    if done.returncode:
        raise UserError(f"gh could not bring the results of run {run}: {' '.join(done.stdout.split())[:300]}.")
    results.bring(folder)
    print(f"The results of run {run} are here: look at git diff, then commit and push dvc.lock with the rest.")


@app.command()
def cml(sha256: Annotated[str, typer.Option(envvar="CML_SHA256", help="The sum that its file must have.")] = "",
        address: Annotated[str, typer.Option(hidden=True)] = CML) -> None:
    """Put CML on the workflow's PATH, by version and checksum."""
    import requests

    if not sha256 or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        print("CML is not asked for (the variable CML_SHA256, the checksum of its program): GitHub's own API posts.")
        return
    content = requests.get(address, timeout=60).content
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{address} does not have the checksum {sha256}: it is not used.")
    program = fresh("cml") / "cml"
    program.write_bytes(content)
    program.chmod(0o755)
    with Path(os.environ["GITHUB_PATH"]).open("a", encoding="utf-8") as path:
        path.write(f"{program.parent}\n")


def _where(api, run: int) -> str:
    """Where a run without a report ended, as GitHub tells."""
    from nbproof.github.api import Answer
    from nbproof.review.markdown import code  # and all of DVC with it

    try:
        steps = [step for job in api.pages(f"/actions/runs/{run}/jobs?filter=latest", "jobs") for step in job["steps"]]
    except Answer as answer:
        return f"before it had one ({answer.status or 'no answer'} where GitHub was asked for the step)"
    failed = next((step["name"] for step in steps if step["conclusion"] == "failure"), None)
    return f"at its step {code(failed)}" if failed else "before it had one"


@app.command()
def post(report: Annotated[Path, typer.Option(help="The Markdown, which is not trusted.")], sha: Sha = "", run: Run = 0,
         wait: Annotated[float, typer.Option(help="Seconds to wait for the tests at most.")] = 0,
         pages_url: Pages = "") -> None:
    """Make or update the comment on each pull request with this head; again when the tests have ended."""
    from nbproof.github.api import Api
    from nbproof.github.post import post
    from nbproof.github.sanitise import sanitised

    api = Api()
    repository = f"{api.server}/{api.repository}"
    allowed = (f"{repository}/actions/runs/{run}", f"{repository}/commit", *filter(None, [pages_url.rstrip("/")]))
    if report.is_file() and not report.is_symlink() and report.stat().st_size <= 4_000_000:
        text = sanitised(report.read_text(encoding="utf-8", errors="replace"), allowed)
    else:
        text = f"**no report**: the run of {sha[:8]} ended {_where(api, run)}. [Its log](<{allowed[0]}>) says why.\n"
    try:
        for seconds in (0, wait):
            ended = tests_ended(api, sha, seconds)
            if not (found := api.pull_requests(sha)):
                print(f"No open pull request has the head {sha[:8]} (closed, or newer commits came): nothing posted.")
                return
            first, line, rest = text.partition("\n")
            for each in found if ended or not seconds else []:
                print(post(api, each["number"], f"{first} Tests of {sha[:8]}: {TESTS_SAY[ended]}.{line}{rest}"))
            if ended:
                return
    except UserError as refusal:
        summarise(text)
        raise UserError(f"{refusal} The report is in the job's summary.") from None


@app.command()
def publish(results: Annotated[Path, typer.Option(help="The folder of results, which is not trusted.")],
            sha: Sha = "", run: Run = 0, event: Annotated[str, typer.Option(envvar="EVENT")] = "",
            default: Annotated[str, typer.Option(envvar="DEFAULT_BRANCH")] = "main",
            app_token: Annotated[str, typer.Option(envvar="APP_TOKEN")] = "") -> None:
    """Check a run's results, push them to the DVC remote, commit dvc.lock with what git keeps."""
    from nbproof.github.api import Api
    from nbproof.github.publish import branch_of, publish
    from nbproof.github.results import remote

    api = Api()
    target = branch_of(api, sha, event, default)
    if target is None:
        print(f"{sha[:8]} is no longer the head of a branch of this repository that is published: nothing to do.")
    else:
        said = publish(api, results, sha, *target, run, remote(), Api(token=app_token) if app_token else None)
        summarise(said)
        print(said)


@app.command()
def retrain() -> None:
    """Compare the numbers of a run from nothing with the committed ones.

    Fails where the metric that counts moved beyond the tolerance, which is its own and no other number's, or where any
    number came, went, or is none now.
    """
    from nbproof.github import results
    from nbproof.pipeline import config, dag

    with dag.opened(root()) as repo:
        changed = repo.metrics.diff(a_rev="HEAD").get("diff", {})
    found = [(path, name, each["old"], each["new"]) for path, names in sorted(changed.items())
             for name, each in names.items() if str(each["old"]) != str(each["new"])]  # NaN is not equal to itself
    moves = [each for each in found if {type(each[2]), type(each[3])} & {int, float}]
    contract = config.load()

    def bad(name: str, old: object, new: object) -> bool:
        if not {type(old), type(new)} <= {int, float} or math.isnan(old) != math.isnan(new):
            return True
        return name.rpartition(".")[2] == contract.metric.key and not contract.tolerance.holds(new, old)

    beyond = [f"{path} {name}" for path, name, old, new in moves if bad(name, old, new)]
    same = "Every output is" if results.at("HEAD") == results.here() else "Not every output is"
    text = f"Trained again from nothing: {len(moves)} numbers moved, beyond the tolerance of project.yaml: " \
           f"{', '.join(beyond) or 'none'}. {same} the same, byte for byte.\n"
    table = [f"| `{path}` | {name} | {old} | {new} |\n" for path, name, old, new in moves]
    summarise(text + "".join(["\n| file | number | committed | now |\n|---|---|---:|---:|\n", *table] if table else []))
    print(text)
    raise typer.Exit(1 if beyond else 0)
