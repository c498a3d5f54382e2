"""The command `nbproof`. `nbproof --help` lists what a person may call; what DVC and workflows call is hidden."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from nbproof import isolation
from nbproof.github.command import app as github
from nbproof.notebook.errors import UserError, trace
from nbproof.notebook.files import root, write_whole

# jsonschema imports this package, if it is there, to check addresses, which no notebook has. That takes seconds.
sys.modules.setdefault("rfc3987_syntax", None)


def ended(code: int | None, **_) -> None:
    """End with the exit code that the command returned."""
    raise typer.Exit(code or 0)


app = typer.Typer(
    name="nbproof", no_args_is_help=True, pretty_exceptions_enable=False, result_callback=ended,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Notebooks, and the proof of them: a pipeline run by DVC, tracked by MLflow, reviewed on GitHub.",
)
app.add_typer(github, name="github", hidden=True)
RUN, EXPLORE, SWEEP, SHARE, CARE = "Run and review", "Explore and change", "Sweep", "Share", "Set up"
SERVE = "Serve"


def named(variable: str, about: str):
    """An argument that must be given, here or by an environment variable (make's), whose name it has in messages."""
    return typer.Argument(envvar=variable, metavar=variable, help=about)


Port = Annotated[int, typer.Option(envvar="PORT", help="The port of this machine to listen at.")]
Yes = Annotated[bool, typer.Option("--yes", envvar="YES", help="Write without asking.")]


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, too.")] = False) -> None:
    if debug:
        os.environ["NBPROOF_DEBUG"] = "1"


@app.command(rich_help_panel=RUN)
def run(
    jobs: Annotated[int, typer.Option(envvar="JOBS", help="Stages at the same time.")] = os.cpu_count() or 1,
    force: Annotated[bool, typer.Option("--force", envvar="FORCE", help="Run all again, from nothing.")] = False,
    remedy: Annotated[bool, typer.Option(help="Take the way out that a failure brings along.")] = True,
    register: Annotated[bool, typer.Option(help="Register the champion.")] = True,
) -> int:
    """Bring every result up to date: run what changed, independent stages at the same time."""
    from nbproof.pipeline.run import run

    return run(jobs, force, remedy, register)


@app.command(hidden=True)
def stage(name: Annotated[str, typer.Argument(envvar="DVC_STAGE")]) -> int:
    """Execute one notebook as a stage; DVC calls this."""
    engine = os.environ.get("ENGINE", "")
    if engine not in ("", "ray"):
        raise UserError(f"ENGINE must be ray, or not set, found {engine!r}.")
    from nbproof.runner import tether

    tether.die_with_starter()
    tether.adopt_orphans()
    from nbproof.pipeline import stage as stage_module
    from nbproof.runner import reaper

    try:
        with reaper.guarded():
            return stage_module.run(name, on_ray=engine == "ray")
    finally:
        for command in tether.end_children():
            print(f"{name}: a process that a cell had started was still at work, and was ended: {command}",
                  file=sys.stderr)


@app.command(rich_help_panel=RUN)
def report(
    base: Annotated[str, typer.Option(envvar="BASE", help="Compare with where the branch left this revision.")] = "",
    out: Annotated[Path | None, typer.Option(envvar="OUT", help="Where to write it, instead of the terminal.")] = None,
) -> int:
    """Say what this branch changed in the results, as Markdown for a pull request; figures in reports/changes.html."""
    from nbproof.report import build

    text = build(base or None)
    if out:
        write_whole(out, text)
    else:
        sys.stdout.buffer.write(text.encode())  # UTF-8 whatever the terminal's encoding is
    return 0


@app.command(rich_help_panel=RUN)
def verify() -> int:
    """Hash every result again and name what is damaged."""
    from nbproof.pipeline.verify import verify

    return verify()


@app.command(rich_help_panel=RUN, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def nbval(context: typer.Context) -> int:
    """Execute the notebooks in reports/ again and compare every output; further arguments are pytest's."""
    from nbproof.pipeline.stage import nbval

    return nbval(context.args)


@app.command(rich_help_panel=EXPLORE, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context, port: Port = 0) -> int:
    """Open JupyterLab on the project; further arguments are JupyterLab's."""
    from nbproof.workspace import lab

    return lab.start(context.args, port)


@app.command(rich_help_panel=EXPLORE)
def adopt(
    run: Annotated[str, typer.Argument(envvar="RUN", help="A run's id, `last`, or `best` of a sweep.")] = "last",
    model: Annotated[str, typer.Option(envvar="MODEL", help="With `best`: the model whose sweep is meant.")] = "",
    yes: Yes = False,
) -> int:
    """Take a run's parameters into params.yaml, after a look at the change."""
    from nbproof.workspace.edit import adopt

    return adopt(run, yes, model)


@app.command(rich_help_panel=EXPLORE)
def model(
    name: Annotated[str, named("NAME", "The new model's name.")],
    like: Annotated[str, typer.Option(envvar="LIKE", help="The model to start from (default: the last one).")] = "",
) -> int:
    """Make the notebook and the parameters of a new model from those of another one."""
    from nbproof.workspace.edit import new_model

    return new_model(name, like)


@app.command(rich_help_panel=SWEEP)
def sweep(
    model: Annotated[str, named("MODEL", "The model whose section of `sweep` is tried.")],
    force: Annotated[bool, typer.Option("--force", envvar="FORCE", help="Begin anew.")] = False,
) -> int:
    """Try many values of a model's parameters, on this machine or on the Ray cluster at RAY_ADDRESS."""
    from nbproof.sweep.drive import sweep

    return sweep(model, force)


@app.command(rich_help_panel=SHARE)
def remote(
    url: Annotated[str, typer.Option(envvar="URL", help="A repository on DagsHub: https://HOST/OWNER/REPO.")] = "",
    tracking: Annotated[str, typer.Option(envvar="TRACKING", help="An MLflow server.")] = "",
    data: Annotated[str, typer.Option(envvar="DATA", help="A DVC remote: s3://, https://, ssh://, or a folder.")] = "",
    endpoint: Annotated[str, typer.Option(envvar="ENDPOINT", help="Where the S3-compatible store is.")] = "",
    unset: Annotated[bool, typer.Option("--unset", help="Back to this machine alone.")] = False,
) -> int:
    """Track runs, and keep data and models, on servers; without options, try the ones that are set."""
    from nbproof.tracking import remotes

    if unset:
        return remotes.unset()
    if not (url or tracking or data):
        return remotes.check()
    return remotes.use(url, tracking, data, endpoint)


@app.command(rich_help_panel=SHARE)
def push() -> int:
    """Send data, models and reports to the DVC remote."""
    from nbproof.tracking.remotes import transfer

    return transfer("push")


@app.command(rich_help_panel=SHARE)
def pull() -> int:
    """Bring data, models and reports from the DVC remote."""
    from nbproof.tracking.remotes import transfer

    return transfer("pull")


@app.command(rich_help_panel=SHARE)
def secrets() -> int:
    """Say which secrets are set, never a value."""
    from nbproof.tracking.remotes import secrets

    return secrets()


@app.command(rich_help_panel=SHARE)
def sync() -> int:
    """Send to the tracking server what it did not take while a notebook ran."""
    from nbproof.tracking.sync import sync

    return sync()


@app.command(rich_help_panel=SHARE)
def promote(
    model: Annotated[str, typer.Argument(envvar="MODEL", help="Default: the comparison's champion.")] = "",
    challenger: Annotated[bool, typer.Option("--challenger", envvar="CHALLENGER",
                                             help="Let it answer in the champion's shadow, unheard.")] = False,
    evidence: Annotated[bool, typer.Option("--evidence", envvar="EVIDENCE",
                                           help="Only if labels that people gave say it is better.")] = False,
) -> int:
    """Register the comparison's champion, or the model that is named."""
    from nbproof.pipeline import config, dag
    from nbproof.tracking.registry import promote

    with dag.opened(root()) as repo:
        dag.check_current(repo, model or config.load().compare)
    return promote(model, challenger, evidence)


@app.command(rich_help_panel=SHARE)
def predict(
    inputs: Annotated[list[Path], named("INPUT", "Files: CSV, JSON, or what the project reads.")],
) -> int:
    """Ask the registered champion."""
    from nbproof.tracking.predict import predict

    return predict(inputs)


@app.command(rich_help_panel=SERVE)
def serve(
    port: Port = 8000,
    host: Annotated[str, typer.Option(envvar="HOST", help="The address to listen at; others can reach any but "
                                      "127.0.0.1, so it needs NBPROOF_TOKEN.")] = "127.0.0.1",
    images: Annotated[bool, typer.Option("--images", envvar="IMAGES", help="Keep inputs in the log, too.")] = False,
    body: Annotated[float, typer.Option(envvar="BODY", help="MB that a request may have.")] = 8,
    rate: Annotated[float, typer.Option(envvar="RATE", help="Requests a second and client; 0: any. Default: 50, and "
                                        "any on 127.0.0.1.", show_default=False)] = -1,
    seconds: Annotated[float, typer.Option(envvar="SECONDS", help="Seconds that a request may take.")] = 10,
    concurrent: Annotated[int, typer.Option(envvar="CONCURRENT", help="Requests at the same time.")] = 64,
    log_size: Annotated[float, typer.Option(envvar="LOG_SIZE", help="MB that the log may hold.")] = 256,
    threads: Annotated[int, typer.Option(envvar="THREADS", help="Processor threads of the model.")] = 1,
    replicas: Annotated[str, typer.Option(envvar="REPLICAS", help="With RAY_ADDRESS: the least and the most processes "
                                          "of the cluster that answer. Default: 2:4", show_default=False)] = "",
) -> int:
    """Serve the champion, with a page, an interface for programs and a log; it follows the registry.

    Where the variable RAY_ADDRESS is set, Ray Serve asks the models on that cluster.
    """
    from nbproof.workspace import bootstrap

    fits = {bootstrap.place(root(), bootstrap.serving()).name, bootstrap.SERVING_RAY}  # which holds both
    if Path(sys.prefix).name not in fits:
        return bootstrap.serve(root(), sys.argv[1:])
    from nbproof.serve.command import serve as start
    from nbproof.serve.options import Options

    return start(Options(host, port, images, body, rate, seconds, concurrent, log_size, threads, replicas))


@app.command("try", rich_help_panel=SERVE)
def try_(name: Annotated[str, named("MODEL", "The model that the page asks.")]) -> int:
    """Write reports/try-NAME.html: one file that asks a model in the browser, without a server."""
    from nbproof.serve.trypage import try_page

    return try_page(name)


@app.command(rich_help_panel=SERVE)
def forget() -> int:
    """Empty the server's log: answers, inputs and labels."""
    from nbproof.serve import log

    print(f"Forgotten: {log.forget()} answers and labels of served/{log.place().name}.")
    return 0


@app.command(rich_help_panel=SERVE)
def rollback() -> int:
    """Let the champion before this one answer again; the same again goes forward."""
    from nbproof.tracking.registry import rollback

    return rollback()


@app.command(rich_help_panel=SHARE)
def drift() -> int:
    """Compare what the server was asked with what the model was judged on; exit code 3 is an alarm."""
    from nbproof.serve.drift import drift

    return drift()


@app.command(rich_help_panel=SHARE)
def harvest(yes: Yes = False) -> int:
    """Take the labelled inputs of the server's log into the data, after a look at them."""
    from nbproof.serve.harvest import harvest

    return harvest(yes)


@app.command(rich_help_panel=SHARE)
def ui(port: Port = 5000) -> int:
    """Open MLflow's page on the local store."""
    from nbproof.notebook.tracking import address, client, local_address, without_credentials
    from nbproof.workspace import lab

    if address() != local_address():
        print(f"The runs are at {without_credentials(address())}.")
        return 0
    lab.check_free(port)
    client()  # makes the store where there is none, and says what is wrong with it
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", local_address(), "--port", str(port)]
    return subprocess.run(command, cwd=root()).returncode


@app.command(rich_help_panel=CARE)
def new(folder: Annotated[Path, named("DIR", "A folder that is not there yet.")]) -> int:
    """Make a project of four small notebooks, for your own data."""
    from nbproof.workspace.new import new

    return new(folder)


@app.command(rich_help_panel=CARE)
def git(remove: Annotated[bool, typer.Option("--remove", help="Take it away again.")] = False) -> int:
    """Let git show and merge notebooks by cells and commit their source alone, in this clone."""
    from nbproof.workspace import git

    return git.unset() if remove else git.set_up()


def main() -> None:
    """Run the command; whatever a person can see to ends with one sentence and an exit code other than 0."""
    isolation.isolate()
    try:
        app()
    except SystemExit as end:
        if end.code == 130:  # Ctrl-C, on which Typer says nothing
            print("Interrupted.", file=sys.stderr)
        raise
    except UserError as refusal:
        refusal.__suppress_context__ = False
        trace()
        print(refusal, file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # no room, no right to write, a file gone in between
        trace()
        where = f" ({error.filename})" if error.filename else ""
        print(f"The system refused: {error.strerror or error}{where}. Put that right, then run again.", file=sys.stderr)
        sys.exit(1)
