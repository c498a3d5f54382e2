"""The commands of this room, which `nbproof` has beside its own."""

import os
from typing import Annotated

import typer
from typer import Argument, Option

from nbproof.notebook.files import root

app = typer.Typer()
PANEL = "Serve"
HOST = "The address to listen on; any but 127.0.0.1 is open to others and needs NBPROOF_TOKEN."
RATE = "Requests per second and client; 0: no limit. Default: 50, and no limit on 127.0.0.1."
REPLICAS = "With RAY_ADDRESS: the fewest and the most processes of the cluster. Default: 2:4"


@app.command(rich_help_panel=PANEL)
def serve(
    port: Annotated[int, Option(min=0, max=65535, help="The port to listen on.")] = 8000,
    host: Annotated[str, Option(help=HOST)] = "127.0.0.1",
    images: Annotated[bool, Option("--images", help="Keep inputs in the log, too.")] = False,
    body: Annotated[float, Option(help="MB that a request may have.")] = 8,
    rate: Annotated[float, Option(help=RATE, show_default=False)] = -1,
    seconds: Annotated[float, Option(help="Seconds that a request may take.")] = 10,
    concurrent: Annotated[int, Option(help="Requests at the same time.")] = 64,
    log_size: Annotated[float, Option(help="MB that the log may hold.")] = 256,
    threads: Annotated[int, Option(help="Processor threads of the model.")] = 1,
    replicas: Annotated[str, Option(help=REPLICAS, show_default=False)] = "",
) -> int:
    """Serve the champion: a page, an HTTP interface and a log.

    Where the variable RAY_ADDRESS is set, Ray Serve runs the models on that cluster.
    """
    from nbproof.serve import environment

    environment.enter(root())
    from nbproof.serve.options import Options

    if os.environ.get("RAY_ADDRESS"):
        from nbproof.serve.ray import serve as start
    else:
        from nbproof.serve.command import serve as start
    return start(Options(
        host, port, images, body, rate, seconds, concurrent, log_size, threads, replicas))


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
