"""The command `nbproof`. `nbproof --help` lists what a person may call; the rest is hidden.

No option is read from an environment variable, except that NBPROOF_JOBS is `run --jobs`: a PORT or
DATA in a stranger's environment means something else.
"""

import os
import sys
from importlib import import_module as load  # when a command is called: help must not wait for DVC
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from nbproof.notebook.errors import UserError, trace, typed
from nbproof.notebook.files import root, write_whole
from nbproof.review.ci import app as github
from nbproof.serve.cli import app as serve

app = typer.Typer(
    name="nbproof", no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reproducible notebooks: a pipeline run by DVC, tracked by MLflow, reviewed on GitHub.",
)
RUN, EXPLORE, SHARE, SET_UP = "Run and review", "Explore and change", "Share", "Set up"
FORWARD = {"allow_extra_args": True, "ignore_unknown_options": True}
CORES = os.cpu_count() or 1
Yes = Annotated[bool, Option("--yes", help="Write without asking.")]
Force = Annotated[bool, Option("--force", help="Run everything again.")]


@app.callback()
def options(debug: Annotated[bool, Option("--debug", help="Show tracebacks.")] = False) -> None:
    if debug:
        os.environ["NBPROOF_DEBUG"] = "1"


@app.command(rich_help_panel=RUN)
def run(
    jobs: Annotated[int, Option(envvar="NBPROOF_JOBS", help="Stages at the same time.")] = CORES,
    force: Force = False,
    fallback: Annotated[bool, Option(help="Take the fallback of a failed notebook.")] = True,
    register: Annotated[bool, Option(help="Register the champion.")] = True,
) -> int:
    """Bring every result up to date: run what changed, independent stages at the same time."""
    at_end = load("nbproof.tracking.registry").promote_once if register else None
    return load("nbproof.pipeline.run").run_pipeline(jobs, force, fallback, at_end)


@app.command(hidden=True)
def stage(words: Annotated[list[str] | None, Argument(help="NAME, KEY=VALUE")] = None) -> int:
    """Execute one notebook as a stage; DVC calls this. dvc.yaml holds the values, too."""
    names = [word for word in words or [] if "=" not in word] or [os.environ.get("DVC_STAGE", "")]
    return load("nbproof.pipeline.stage").run_stage(names[0])


@app.command(rich_help_panel=RUN)
def report(
    base: Annotated[str, Option(help="Compare with the commit where the branch left it.")] = "",
    out: Annotated[Path | None, Option(help="Write to this file, not to the terminal.")] = None,
) -> None:
    """Describe what this branch changed in the results, as Markdown and in reports/review.html."""
    text, page = load("nbproof.review.render").build(base or None)
    write_whole(root() / "reports" / "review.html", page)
    if out:
        write_whole(out, text)
    else:
        sys.stdout.buffer.write(text.encode())  # UTF-8 whatever the terminal's encoding is


@app.command(rich_help_panel=RUN)
def verify(fix: Annotated[bool, Option("--fix", help="Repair DVC's cache.")] = False) -> int:
    """Hash every result again and name what is damaged."""
    return load("nbproof.pipeline.verify").verify(fix)


@app.command(rich_help_panel=RUN)
def test(stages: Annotated[list[str] | None, Argument(help="Default: all.")] = None) -> int:
    """Execute notebooks again as their stages do, and compare all that their cells show."""
    return load("nbproof.pipeline.retest").retest(stages or [])


@app.command(rich_help_panel=RUN, context_settings=FORWARD)
def nbval(context: typer.Context) -> int:
    """Execute the notebooks in reports/ again and compare each output; pytest gets options."""
    return load("nbproof.pipeline.stage").nbval(context.args)


@app.command(rich_help_panel=EXPLORE, context_settings=FORWARD)
def lab(context: typer.Context) -> int:
    """Open JupyterLab on the project; JupyterLab gets all options, such as --port 8899."""
    return load("nbproof.workspace.lab").start(context.args)


@app.command(rich_help_panel=EXPLORE)
def ui(port: Annotated[int, Option(min=1, max=65535, help="The port.")] = 5000) -> int:
    """Open MLflow's page on the local store."""
    load("nbproof.workspace.lab").check_free(port)
    return load("nbproof.tracking.page").serve(port)


@app.command(rich_help_panel=EXPLORE)
def adopt(
    run: Annotated[str, Argument(help="A run's id, or `last` for the newest here.")] = "last",
    yes: Yes = False,
) -> int:
    """Write a run's parameters to params.yaml; show the change and ask first."""
    return load("nbproof.workspace.params").adopt(run, yes)


@app.command(rich_help_panel=EXPLORE)
def model(
    name: Annotated[str, Argument(help="The new model's name.")],
    like: Annotated[str, Option(help="The model to start from (default: the last one).")] = "",
) -> int:
    """Make the notebook and the parameters of a new model from those of another one."""
    return load("nbproof.workspace.new_model").new_model(name, like)


@app.command(rich_help_panel=EXPLORE)
def sweep(
    model: Annotated[str, Argument(help="A model that `sweep:` in params.yaml lists.")],
    force: Annotated[bool, Option("--force", help="Begin the sweep anew.")] = False,
) -> int:
    """Try many values of a model's parameters, here or on the Ray cluster at RAY_ADDRESS."""
    return load("nbproof.sweep.drive").sweep(model, force)


@app.command(rich_help_panel=SHARE)
def remote(
    url: Annotated[str, Option(help="A repository on DagsHub: https://HOST/OWNER/REPO.")] = "",
    tracking: Annotated[str, Option(help="An MLflow server.")] = "",
    data: Annotated[str, Option(help="A DVC remote: s3://, https://, ssh://, or a folder.")] = "",
    endpoint: Annotated[str, Option(help="The address of an S3-compatible store.")] = "",
) -> int:
    """Track runs and keep data on servers; without options, test what is set."""
    remotes = load("nbproof.tracking.remotes")
    if url or tracking or data:
        return remotes.use(url, tracking, data, endpoint)
    return remotes.check()


@app.command(rich_help_panel=SHARE)
def push() -> int:
    """Send data, models and reports to the DVC remote."""
    return load("nbproof.tracking.remotes").transfer("push")


@app.command(rich_help_panel=SHARE)
def pull() -> int:
    """Download data, models and reports from the DVC remote."""
    return load("nbproof.tracking.remotes").transfer("pull")


@app.command(rich_help_panel=SHARE)
def sync() -> int:
    """Send the tracking server the runs that it lacks."""
    return load("nbproof.notebook.tracking").sync()


@app.command(rich_help_panel=SHARE)
def promote(
    model: Annotated[str, Argument(help="Default: the comparison's champion.")] = "",
    challenger: Annotated[bool, Option("--challenger", help="Only log its predictions.")] = False,
    yes: Yes = False,
) -> int:
    """Register the comparison's champion, or the model that is named."""
    from nbproof.pipeline import config, dag

    with dag.opened(root()) as repo:
        dag.check_current(repo, model or config.load().compare)
    return load("nbproof.tracking.registry").promote(model, challenger, yes)


@app.command(rich_help_panel=SHARE)
def rollback() -> int:
    """Make the previous champion the champion; a second call undoes it."""
    return load("nbproof.tracking.registry").rollback()


@app.command(rich_help_panel=SHARE)
def predict(
    inputs: Annotated[list[Path], Argument(help="Tables (CSV, JSON), or what the project reads.")],
) -> int:
    """Print the registered champion's predictions."""
    return load("nbproof.tracking.predict").predict(inputs)


app.add_typer(serve)
app.add_typer(github, name="github", hidden=True)


@app.command(rich_help_panel=SET_UP)
def new(
    folder: Annotated[Path, Argument(metavar="DIR", help="A new folder.")],
    vendor: Annotated[bool, Option("--vendor-workflows", help="Copy all workflows.")] = False,
) -> int:
    """Make a new project of four small notebooks, for your own data."""
    return load("nbproof.workspace.new").new(folder, vendor)


@app.command(rich_help_panel=SET_UP)
def init(
    dry_run: Annotated[bool, Option("--dry-run", help="Only print what would be written.")] = False,
) -> int:
    """Make this folder of notebooks a project; no notebook is changed."""
    return load("nbproof.workspace.init").init(dry_run)


@app.command(rich_help_panel=SET_UP)
def add(
    notebook: Annotated[Path, Argument(help="The notebook: it runs once, in its own folder.")],
    yes: Yes = False,
) -> int:
    """Run a notebook once and make it a stage, or bring its stage up to date."""
    return load("nbproof.workspace.add").add(notebook, yes)


@app.command(rich_help_panel=RUN)
def deps(
    stage: Annotated[str, Argument(help="Default: all.")] = "",
    fix: Annotated[bool, Option("--fix", help="Add the lines to dvc.yaml.")] = False,
) -> int:
    """Name what dvc.yaml does not list of the files that the last runs read and wrote."""
    return load("nbproof.workspace.add").check_deps(stage, fix)


@app.command(rich_help_panel=SET_UP)
def pins(
    upgrade: Annotated[bool, Option("--upgrade", help="Take the newest versions.")] = False,
    cpu: Annotated[bool, Option("--cpu", help="Lock PyTorch's build without CUDA, too.")] = False,
) -> None:
    """Lock the dependency groups of pyproject.toml in requirements.txt and requirements/."""
    load("nbproof.workspace.pins").lock(root(), upgrade, cpu)


@app.command(rich_help_panel=SET_UP)
def git() -> int:
    """Let git show and merge notebooks by cells and commit only their source, in this clone."""
    return load("nbproof.workspace.git").set_up()


def main() -> None:
    """Run the command; an error of a person's ends with one sentence and an exit code above 0."""
    try:
        code = app(standalone_mode=False)
        if code == 130:  # Ctrl-C, on which Typer prints nothing
            print("Interrupted.", file=sys.stderr)
        sys.exit(code)
    except typer.Abort:  # a question, and no answer
        sys.exit("Aborted.")
    except typer.TyperException as error:  # an option or its value is wrong
        if message := error.format_message():  # none where the help is shown instead
            asked = f"{error.ctx.command_path} --help lists what it takes."
            stop = "" if message[-1] in ".?" else "."
            print(f"{message}{stop} {typed(asked)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except UserError as error:
        error.__suppress_context__ = False
        trace()
        print(typed(str(error)), file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # no room, no right to write, a file gone in between
        trace()
        print(f"The system refused: {error}. Fix that, then run again.", file=sys.stderr)
        sys.exit(1)
