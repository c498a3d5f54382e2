"""`nbproof github STEP`: the steps of the workflows, each run by one line of .github/workflows.

What a workflow knows comes by variables: no text of others stands in a shell's line.
"""

import shutil
import tarfile
import tempfile
from importlib import import_module as load  # DVC only where a step needs it
from os import devnull, environ
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root

# What the report has until its pages are uploaded.
REVIEW, TRY = (f"https://{name}.invalid/page" for name in ("review", "try"))
app = typer.Typer(no_args_is_help=True, help="Set GitHub up; take a run's results; CI's steps.")


def fork_point() -> str:
    """Return the commit where this branch left $BASE; "" where git has none: a first push."""
    base, revision = load("nbproof.review.base"), environ.get("BASE", "")
    return base.base_of(revision) if base.commit(revision) else ""


def empty(name: str) -> Path:
    """Return the folder scratch/NAME, empty."""
    folder = root() / "scratch" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def summarise(text: str) -> None:
    """Add to the job's summary, which takes 1 MiB a step."""
    with Path(environ.get("GITHUB_STEP_SUMMARY") or devnull).open("a", encoding="utf-8") as file:
        file.write(f"{text[:250_000]}\n")


@app.command()
def setup(check: Annotated[bool, Option("--check", help="Name what is missing.")] = False) -> int:
    """Print the lines of gh that set this repository up for the workflows."""
    return load("nbproof.review.setup").setup(check)


@app.command()
def take(run: Annotated[int, Argument(min=1, help="The number in the run's address.")]) -> None:
    """Check a run's results and write them into this checkout of its branch, to be committed."""
    artifact = load("nbproof.review.artifact")
    with tempfile.TemporaryDirectory() as folder:  # not scratch/, which a branch may have linked
        load("nbproof.review.gh").gh("run", "download", str(run), "--name", "results",
                                     "--dir", folder)
        artifact.take(Path(folder))
    print(f"The results of run {run} are here: look at git diff, then commit and push dvc.lock "
          "with the rest.")


@app.command()
def pull() -> None:
    """Bring what the DVC remote has."""
    base = load("nbproof.review.base")
    before = base.recorded_outs(base.at(fork_point(), "dvc.lock"))
    try:
        print(load("nbproof.review.artifact").pull(before))
    except UserError as error:
        print(f"{error} What is missing is made again.")


@app.command()
def pages() -> None:
    """Write the report, and the pages to upload: the review, one to ask the model in a browser."""
    run, fork, tried = environ.get("GITHUB_RUN_ID", ""), fork_point(), empty("try")
    printed = load("nbproof.review.base").here("scratch/run.log") or ""
    model = _changed_model(fork)
    links = {"review": REVIEW, "main": environ.get("PAGES_URL", "").rstrip("/"),
             "try": TRY if model else ""}
    text, page = load("nbproof.review.render").build(
        fork, links, run, outcome=printed,
        is_main=environ.get("GITHUB_EVENT_NAME") == "push")
    suffix = f"{run}-{environ.get('GITHUB_RUN_ATTEMPT', 1)}.html"  # a name is once in a run
    (empty("report") / "report.md").write_text(text, encoding="utf-8")
    (empty("review") / f"review-{suffix}").write_text(page, encoding="utf-8")
    if model:
        load("nbproof.serve.trypage").try_page(model)
        shutil.copyfile(root() / "reports" / f"try-{model}.html", tried / f"try-{model}-{suffix}")


def _changed_model(fork: str) -> str:
    """Return which model with a new ONNX file a page of the project asks, if any: the champion,
    else the first."""
    base, contract = load("nbproof.review.base"), load("nbproof.pipeline.config").load()
    now, before = (base.recorded_outs(lock) for lock in (
        base.here("dvc.lock"), base.at(fork, "dvc.lock")))
    changed = now.items() - before.items()
    names = sorted(Path(path).stem for path, _ in changed if Path(path).match("models/*.onnx"))
    champion = contract.compared().get("champion")
    return (champion if champion in names else names[0]) if contract.page and names else ""


@app.command()
def report() -> None:
    """Finish the report with where its pages were uploaded, and add it to the job's summary."""
    file = root() / "scratch" / "report" / "report.md"
    run = load("nbproof.review.gh").page_of(environ["GITHUB_RUN_ID"])
    first, newline, rest = file.read_text(encoding="utf-8").partition("\n")
    if (test := environ.get("TEST")) in ("success", "failure"):
        how = "the same outputs" if test == "success" else "**other outputs**, see the run's log"
        first += f" Executed again: {how}."
    text = f"{first}{newline}{rest}"
    for page, name in ((REVIEW, "REVIEW_URL"), (TRY, "TRY_URL")):
        text = text.replace(page, environ.get(name) or run)  # not uploaded: the log says why
    file.write_text(text, encoding="utf-8")
    summarise(load("nbproof.review.sanitise").sanitised(text, run, environ.get("PAGES_URL", "")))


@app.command()
def results() -> None:
    """Lay out the outputs in scratch/results for who publishes or takes them."""
    load("nbproof.review.artifact").lay_out(empty("results"))


@app.command()
def site() -> None:
    """Pack the index and the pages of the stages for GitHub Pages: not those of people's inputs."""
    dag, reports = load("nbproof.pipeline.dag"), root() / "reports"
    with dag.opened(root()) as repo:
        names = ["index", *(stage.short for stage in dag.read(repo).values())]
    with tarfile.open(empty("site") / "artifact.tar", "w") as packed:
        for page in (reports / f"{name}.html" for name in names):
            if page.exists():
                packed.add(page, page.name)


@app.command()
def comment() -> None:
    """Make or update the comment on each pull request whose head is $HEAD_SHA."""
    comment = load("nbproof.review.comment").comment
    print(comment(environ["HEAD_SHA"], environ.get("PAGES_URL", "")))


@app.command()
def publish() -> None:
    """Check a run's results, push them to the DVC remote, commit what git keeps."""
    names = ("HEAD_SHA", "HEAD_BRANCH", "DEFAULT_BRANCH", "RUN_ID")
    done = load("nbproof.review.publish").publish(
        Path(environ["RUNNER_TEMP"]) / "results", *(environ[name] for name in names),
        commits=environ.get("COMMITS") == "true")
    summarise(done)
    print(done)


@app.command()
def retrain() -> int:
    """Compare the metrics of a run from nothing with the committed ones; fail where one is outside
    of the project's tolerance, came, went or became NaN."""
    dag, compare = load("nbproof.pipeline.dag"), load("nbproof.pipeline.compare")
    with dag.opened(root()) as repo:
        outside = [f"{key} of {stage.short}" for stage in dag.read(repo).values()
                   for key in compare.outside(stage.short)]
    print(f"Outside of the tolerance of project.yaml: {', '.join(outside) or 'no metric'}.")
    return int(bool(outside))
