"""The commands of this room, which `nbproof` has beside its own."""

import os
import sys
from importlib import import_module as load
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.serve.options import Options
from nbproof.workspace import bootstrap

app = typer.Typer()
LOCKS = {  # of the servers' environments, which have no MLflow, DVC or framework that trains
    ".venv-serve": ["requirements/serve.txt"],
    ".venv-serve-ray": ["requirements/serve.txt", "requirements/serve-ray.txt"],
}
SMALL, RAY = LOCKS
HOME = Path(__file__).resolve().parents[2]
PANEL = "Serve"
HOST = "The address to listen on; any but 127.0.0.1 is open to others and needs NBPROOF_TOKEN."
REPLICAS = "With RAY_ADDRESS: the fewest and the most processes of the cluster."
NO_MODEL = """\
There is no champion with an ONNX file, which a server runs. The model's notebook writes it, \
models/NAME.onnx, as an output of its stage by models.save_onnx, from scikit-learn and PyTorch \
(docs/contract.md, "A model as ONNX"). Then nbproof run registers the champion, or nbproof promote \
does."""


@app.command(rich_help_panel=PANEL)
def serve(
    context: typer.Context,
    port: Annotated[int, Option(min=0, max=65535, help="The port to listen on.")] = Options.port,
    host: Annotated[str, Option(help=HOST)] = Options.host,
    images: Annotated[bool, Option("--images", help="Keep inputs in the log, too.")] = False,
    body: Annotated[float, Option(min=0.001, help="MB of a request.")] = Options.body,
    seconds: Annotated[float, Option(min=0.1, help="Time of a request.")] = Options.seconds,
    concurrent: Annotated[int, Option(min=1, help="Requests at once.")] = Options.concurrent,
    log_size: Annotated[float, Option(min=0.1, help="MB of the log.")] = Options.log_size,
    threads: Annotated[int, Option(min=1, help="Threads of a prediction.")] = Options.threads,
    replicas: Annotated[tuple[int, int], Option(help=REPLICAS)] = Options.replicas,
) -> int:
    """Serve the champion: a page, an HTTP interface and a log.

    Where the variable RAY_ADDRESS is set, Ray Serve runs the models on that cluster.
    """
    options, cluster = Options(**context.params), os.environ.get("RAY_ADDRESS")
    _check_model()
    _enter(RAY if cluster else SMALL)
    return load("nbproof.serve.ray" if cluster else "nbproof.serve.command").serve(options)


def _check_model() -> None:
    """Raise UserError where neither this folder nor the registry has a model to serve."""
    from nbproof.pipeline import config
    from nbproof.tracking import versions

    name = config.load().compared().get("champion", "")
    if not (root() / "models" / f"{name}.onnx").exists():
        version = versions.current("champion")
        if not version or "portable_digest" not in version.tags:
            raise UserError(NO_MODEL)


def _enter(name: str) -> None:
    """Run this command again in the environment `name`, made where it is missing; or be in it."""
    if Path(sys.prefix).name in (name, RAY):
        return
    python = str(bootstrap.set_up(root(), name, LOCKS[name]) / bootstrap.PYTHON)
    command = [python, "-m", "nbproof", *sys.argv[1:]]
    own = {"PYTHONPATH": str(HOME)} if (HOME / "pyproject.toml").exists() else {}  # not installed
    os.execve(python, command, os.environ | own)


@app.command("try", rich_help_panel=PANEL)
def try_(name: Annotated[str, Argument(metavar="MODEL", help="The model to run.")]) -> int:
    """Write reports/try-MODEL.html: one file that runs a model in the browser."""
    return load("nbproof.serve.trypage").try_page(name)


@app.command(rich_help_panel=PANEL)
def forget() -> int:
    """Empty the server's log: predictions, inputs and labels."""
    return load("nbproof.serve.log").forget()


@app.command(rich_help_panel=PANEL)
def drift() -> int:
    """Compare the server's requests with the data of the evaluation; exit code 3 is an alarm."""
    return load("nbproof.serve.log_notebooks").drift()


@app.command(rich_help_panel=PANEL)
def harvest(yes: Annotated[bool, Option("--yes", help="Write without asking.")] = False) -> int:
    """Add the labelled inputs of the server's log to the data; show them and ask first."""
    return load("nbproof.serve.log_notebooks").harvest(yes)
