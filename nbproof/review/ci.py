"""`nbproof github STEP`: the steps of the workflows, each run by one line of .github/workflows.

What a workflow knows comes by variables: no text of others stands in a shell's line.
"""

import os
import re
import shutil
import tarfile
import tempfile
from importlib import import_module as load  # DVC only where a step needs it
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root

# What the report has until its pages are uploaded, about as long as their addresses.
REVIEW, TRY = (f"https://{name}.invalid/{'-' * 60}" for name in ("review", "try"))
app = typer.Typer(no_args_is_help=True, help="Set GitHub up; take a run's results; CI's steps.")


def fork_point(revision: str) -> str:
    """Return the commit where this branch left `revision`; "" where git has none: a first push."""
    base = load("nbproof.review.base")
    return (base.commit(root(), revision) and base.base_of(root(), revision)) or ""


Base = Annotated[str, Option(envvar="BASE", callback=fork_point, help="What this branch left.")]
Run = Annotated[int, Option(envvar=["RUN_ID", "GITHUB_RUN_ID"], min=0, help="The run's id.")]
Sha = Annotated[str, Option(envvar="HEAD_SHA", help="The run's commit.")]
Event = Annotated[str, Option(envvar=["EVENT", "GITHUB_EVENT_NAME"])]
PagesUrl = Annotated[str, Option(envvar="PAGES_URL", help="Where main's pages are published.")]


def empty(name: str) -> Path:
    """Return the folder scratch/NAME, empty."""
    folder = root() / "scratch" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def summarise(text: str) -> None:
    """Add to the job's summary, which takes 1 MiB a step."""
    with Path(os.environ.get("GITHUB_STEP_SUMMARY") or os.devnull).open("a", encoding="utf-8") as f:
        f.write(f"{text[:250_000]}\n")


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
def pull(base: Base = "") -> None:
    """Bring what the DVC remote has."""
    artifact = load("nbproof.review.artifact")
    reason = empty("pull") / "why"  # the report names it
    reason.touch()
    try:
        print(artifact.pull(artifact.at(base)))
    except UserError as error:
        print(f"{error} What is missing is made again.")
        reason.write_text(str(error), encoding="utf-8")


@app.command()
def pages(base: Base = "", run: Run = 0, event: Event = "", pages_url: PagesUrl = "",
          attempt: Annotated[int, Option(envvar="GITHUB_RUN_ATTEMPT", min=1)] = 1) -> None:
    """Write the report, and the pages to upload: the review, one to ask the model in a browser."""
    read = {name: path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            for name in ("run.log", "pull/why") for path in [root() / "scratch" / name]}
    text, page = load("nbproof.review.render").build(
        base, {"review": REVIEW, "try": TRY, "main": pages_url.rstrip("/")}, str(run or ""),
        outcome=read["run.log"], pulled=read["pull/why"], is_main=event == "push")
    suffix, tried = f"{run}-{attempt}.html", empty("try")  # a name is once in a run
    (empty("report") / "report.md").write_text(text, encoding="utf-8")
    (empty("review") / f"review-{suffix}").write_text(page, encoding="utf-8")
    artifact, contract = load("nbproof.review.artifact"), load("nbproof.pipeline.config").load()
    changed = artifact.here().items() - artifact.at(base).items()
    names = sorted(Path(path).stem for path, _ in changed if Path(path).match("models/*.onnx"))
    if contract.page and names:
        champion = contract.compared().get("champion")
        name = champion if champion in names else names[0]
        load("nbproof.serve.trypage").try_page(name)
        shutil.copyfile(root() / "reports" / f"try-{name}.html", tried / f"try-{name}-{suffix}")


@app.command()
def report(review_url: Annotated[str, Option(envvar="REVIEW_URL")] = "",
           try_url: Annotated[str, Option(envvar="TRY_URL")] = "",
           test: Annotated[str, Option(envvar="TEST", help="How `test` ended.")] = "") -> None:
    """Finish the report with where its pages were uploaded, and add it to the job's summary."""
    file = root() / "scratch" / "report" / "report.md"
    text = file.read_text(encoding="utf-8")
    text = text.replace(REVIEW, review_url or REVIEW).replace(TRY, try_url or TRY)
    for link, words in ((rf"\[open\]\(<{REVIEW}#[^>]*>\)", ""), (rf" \[[^]]*\]\(<{TRY}>\)", ""),
                        (rf"\[[^]]*\]\(<{REVIEW}>\)", "The page could not be uploaded")):
        text = re.sub(link, words, text)
    if test in ("success", "failure"):
        first, newline, rest = text.partition("\n")
        how = "the same outputs" if test == "success" else "**other outputs**, see the run's log"
        text = f"{first} Executed again: {how}.{newline}{rest}"
    file.write_text(text, encoding="utf-8")
    summarise(text)


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
def comment(sha: Sha = "", pages_url: PagesUrl = "") -> None:
    """Make or update the comment on each pull request with this head."""
    print(load("nbproof.review.comment").comment(sha, pages_url))


@app.command()
def publish(results: Annotated[Path, Option(help="The folder of results, not trusted.")],
            sha: Sha = "", run: Run = 0,
            branch: Annotated[str, Option(envvar="HEAD_BRANCH", help="Whose head it was.")] = "",
            default: Annotated[str, Option(envvar="DEFAULT_BRANCH")] = "main",
            commits: Annotated[str, Option(envvar="COMMITS")] = "") -> None:
    """Check a run's results, push them to the DVC remote, commit what git keeps."""
    done = load("nbproof.review.publish").publish(results, sha, branch, default, run,
                                                  commits == "true")
    summarise(done)
    print(done)


@app.command()
def retrain() -> int:
    """Compare the metrics of a run from nothing with the committed ones; fail where one is outside
    of the project's tolerance, came, went or became NaN."""
    dag, compare = load("nbproof.pipeline.dag"), load("nbproof.pipeline.compare")
    with dag.opened(root()) as repo:
        stages = dag.read(repo)
    outside = [f"{key} of {stage.short}" for stage in stages.values()
               for key in compare.outside(stage.short)]
    text = "\n".join([*compare.compared(stages), "Outside of the tolerance of project.yaml: "
                      f"{', '.join(outside) or 'no metric'}."])
    summarise(text)
    print(text)
    return int(bool(outside))
