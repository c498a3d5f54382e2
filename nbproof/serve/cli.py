"""The commands of this room, which `nbproof` has beside its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
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
RATE = "Requests per second and client; 0: no limit. Default: 50, and no limit on 127.0.0.1."
REPLICAS = "With RAY_ADDRESS: the fewest and the most processes of the cluster. Default: 2:4"


@app.command(rich_help_panel=PANEL)
def serve(
    port: Annotated[int, Option(min=0, max=65535, help="The port to listen on.")] = 8000,
    host: Annotated[str, Option(help=HOST)] = "127.0.0.1",
    images: Annotated[bool, Option("--images", help="Keep inputs in the log, too.")] = False,
    body: Annotated[float, Option(min=0.001, help="MB that a request may have.")] = 8,
    rate: Annotated[float | None, Option(min=0, help=RATE, show_default=False)] = None,
    seconds: Annotated[float, Option(min=0.1, help="Seconds that a request may take.")] = 10,
    concurrent: Annotated[int, Option(min=1, help="Requests at the same time.")] = 64,
    log_size: Annotated[float, Option(min=0.1, help="MB that the log may hold.")] = 256,
    threads: Annotated[int, Option(min=1, help="Processor threads of the model.")] = 1,
    replicas: Annotated[str, Option(help=REPLICAS, show_default=False)] = "",
) -> int:
    """Serve the champion: a page, an HTTP interface and a log.

    Where the variable RAY_ADDRESS is set, Ray Serve runs the models on that cluster.
    """
    cluster = os.environ.get("RAY_ADDRESS")
    if replicas and not cluster:
        raise UserError("--replicas is for a cluster: set RAY_ADDRESS, too.")
    _enter(RAY if cluster else SMALL)
    from nbproof.serve.options import Options

    if cluster:
        from nbproof.serve.ray import serve as start
    else:
        from nbproof.serve.command import serve as start
    return start(Options(
        host, port, images, body, rate, seconds, concurrent, log_size, threads, replicas))


def _enter(name: str) -> None:
    """Run this command again in the environment `name`, made where it is missing; or be in it."""
    if Path(sys.prefix).name in (name, RAY):
        return
    python = str(bootstrap.set_up(root(), name, LOCKS[name]) / bootstrap.PYTHON)
    command = [python, "-m", "nbproof", *sys.argv[1:]]
    own = {"PYTHONPATH": str(HOME)} if (HOME / "pyproject.toml").exists() else {}  # not installed
    if os.name == "nt":  # without an exec that the console waits for
        sys.exit(subprocess.run(command, env=os.environ | own).returncode)
    os.execve(python, command, os.environ | own)


@app.command("try", rich_help_panel=PANEL)
def try_(name: Annotated[str, Argument(metavar="MODEL", help="The model to run.")]) -> int:
    """Write reports/try-MODEL.html: one file that runs a model in the browser."""
    from nbproof.serve.trypage import try_page

    return try_page(name)


@app.command(rich_help_panel=PANEL)
def forget() -> int:
    """Empty the server's log: predictions, inputs and labels."""
    from nbproof.serve import log

    print(f"Forgotten: {log.forget()} predictions and labels of {log.LOG}.")
    return 0


@app.command(rich_help_panel=PANEL)
def drift() -> int:
    """Compare the server's requests with the data of the evaluation; exit code 3 is an alarm."""
    from nbproof.serve.log_notebooks import drift

    return drift()


@app.command(rich_help_panel=PANEL)
def harvest(yes: Annotated[bool, Option("--yes", help="Write without asking.")] = False) -> int:
    """Add the labelled inputs of the server's log to the data; show them and ask first."""
    from nbproof.serve.log_notebooks import harvest

    return harvest(yes)
