"""One notebook as one stage: every cell executed with checked parameters, the executed copy and its page written.

Everything in this folder shapes a stage's outputs, so every stage depends on it; what shapes none stays out of it.
"""

import importlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root, write_whole


def run_stage(notebook: Path, execute: Callable | None = None) -> int:
    """Execute `notebook` with its values from params.yaml into reports/NAME.ipynb and .html; 0 if every cell ran.

    `execute` does what execute.execute does, elsewhere."""
    from nbproof.runner import limits, schema, secrets, source  # here, so that they take no time of a kernel's

    name, started = notebook.stem, time.monotonic()
    timeout = cell_timeout()
    values = schema.values_of(notebook)
    source.strip_file(notebook)
    if execute is None:
        from nbproof.runner.execute import execute  # slow to import, and not needed to refuse a bad parameter

    threading.Thread(target=importlib.import_module, args=["nbproof.runner.html"]).start()  # while the kernel starts
    executed, failure = execute(notebook, values, timeout, root())
    failure = secrets.take_out(executed) or failure
    limits.number_widgets(executed)
    for warning in (*limits.shorten(executed), *limits.varying(executed)[:1]):
        print(f"{name}: warning: {warning}", file=sys.stderr, flush=True)
    said = f"{name}: {schema.shown(notebook)} failed at {failure}"
    try:
        write_reports(name, executed, notebook.parent)
    except OSError as error:
        also = f"{said}\n" if failure else ""
        raise UserError(f"{also}{name}: its reports could not be written ({error.strerror}); make room and run again, "
                      "or bring the last results back by dvc checkout --force.") from None
    if failure:
        print(said, file=sys.stderr, flush=True)
        return 1
    print(f"{name}: every cell ran, {time.monotonic() - started:.1f} s -> reports/{name}.html", flush=True)
    return 0


def write_reports(name: str, executed, folder: Path) -> None:
    """Write an executed notebook and its page; `folder` is where its embedded pictures are."""
    import nbformat

    from nbproof.runner import html as html_page

    write_whole(root() / "reports" / f"{name}.ipynb", nbformat.writes(executed) + "\n")
    write_whole(root() / "reports" / f"{name}.html", html_page.render(executed, folder, name))


def cell_timeout() -> float:
    """The seconds that one cell may take: CELL_TIMEOUT, or an hour."""
    given = os.environ.get("CELL_TIMEOUT") or "3600"
    try:
        if 0 < (seconds := float(given)) < math.inf:
            return seconds
    except ValueError:
        pass  # refused below, as every other text that is no positive number
    raise UserError(f"CELL_TIMEOUT must be a number of seconds above 0, found {given!r}.")
