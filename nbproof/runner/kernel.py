"""The kernel's process: ipykernel, which reports after each cell what shapes the results.

What the notebook reads and writes is noted by an audit hook in this process and in the Python
processes that it starts: nbproof.runner.observer.
"""

import atexit
import logging
import os
import re
import sys
import sysconfig
import warnings
from pathlib import Path

from nbproof.notebook.progress import say
from nbproof.runner import determinism
from nbproof.runner.observer import sitecustomize as observer

COMPILED = re.compile(r"__pycache__/([^/.]+)\.[^/]+\.pyc$")  # of a module, whose source counts
reported: dict = {}


def main() -> None:
    """Serve one notebook, by the arguments of this process."""
    from ipykernel import compiler, kernelapp

    # A warning shows the file of its cell. The folder's name holds this process's id, and there
    # is no setting for it.
    compiler.get_tmp_directory = lambda: "cells"
    # A kernel that shuts down on a busy machine may find its sockets closed, and prints that.
    logging.getLogger("tornado.general").setLevel(logging.CRITICAL)
    warnings.formatwarning = without_folder(warnings.formatwarning)
    observe()
    app = kernelapp.IPKernelApp.instance()
    app.initialize(sys.argv[1:])
    app.shell.ask_exit = sys.exit  # exit() in a cell then fails it, as sys.exit() does
    app.shell.events.register("post_run_cell", report)
    app.shell.events.register("post_run_cell", report_command)
    app.start()


def without_folder(format_warning):
    """Return `format_warning` that shows a library's file without the folder of the environment."""
    folder = sysconfig.get_path("purelib") + os.sep
    return lambda *given, **named: format_warning(*given, **named).replace(folder, "")


def observe() -> None:
    """Note what this process, and each Python that it starts, opens below the project."""
    log, folder = os.environ[observer.LOG], Path(observer.__file__).parent
    observer.install(log, os.environ["NBPROOF_PROJECT"])
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), inherited]))


def report(_=None) -> None:
    """After each cell, send what is new: the arithmetic, and which files were read and written.

    This is the one place where a kernel reports what its notebook depends on.
    """
    now = {"arithmetic": determinism.process(), "changed": determinism.changed(),
           **opened(Path(os.environ[observer.LOG]))}
    if reported != now:
        reported.update(now)
        say(**now)


def report_command(result) -> None:
    """Tell of a shell command (`!pip install x`) of a cell that failed, which raises nothing."""
    from IPython import get_ipython

    code = get_ipython().user_ns.get("_exit_code", 0)
    if code and "!" in (result.info.raw_cell or ""):
        say(message=f"warning: `{result.info.raw_cell.strip()[:60]}`: a command ended with exit "
                    f"code {code}")


def opened(log: Path) -> dict[str, list[str]]:
    """Return the project's files that were read before anything wrote them, those written, and
    the databases of SQLite, of which it is not known."""
    read, written, databases = set(), set(), set()
    project = os.environ["NBPROOF_PROJECT"] + os.sep
    for line in log.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        path = line[2:].removeprefix(project).replace(os.sep, "/")
        if line[0] == "r" and (path := COMPILED.sub(r"\1.py", path)) not in written:
            read.add(path)
        elif line[0] != "r":
            (written if line[0] == "w" else databases).add(path)
    return {"read": sorted(read), "written": sorted(written), "databases": sorted(databases)}


if __name__ == "__main__":
    from nbproof.runner import kernel  # by its name, for IPython makes another module __main__

    # Registered first, so called last: taking large libraries apart costs a second for nothing.
    atexit.register(os._exit, 0)
    kernel.main()
