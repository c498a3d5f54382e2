"""The kernel's process: ipykernel, which reports after each cell what shapes the results."""

import atexit
import json
import logging
import os
import sys
import sysconfig
import warnings
from pathlib import Path

from nbproof.notebook.progress import say
from nbproof.runner import determinism

SOURCES = (".py", ".ipynb")
opened: set[str] = set()  # sources below the project that something has read
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
    sys.addaudithook(observe)
    app = kernelapp.IPKernelApp.instance()
    app.initialize([*sys.argv[1:], f"--Session.packer={__name__}.pack"])
    app.shell.events.register("post_run_cell", report)
    app.start()


def without_folder(format_warning):
    """Return `format_warning` that shows a library's file without the folder of the environment."""
    folder = sysconfig.get_path("purelib") + os.sep
    return lambda *given, **named: format_warning(*given, **named).replace(folder, "")


def observe(event: str, arguments: tuple) -> None:
    """Note each source file that is opened, as by %run or exec; an audit hook (PEP 578)."""
    if event == "open":
        path = arguments[0]
        if isinstance(path, str) and path.endswith(SOURCES):
            opened.add(path)


def report(_=None) -> None:
    """After each cell, send what is new: the arithmetic, and the project's files it depends on.

    This is the one place where a kernel reports what its notebook depends on.
    """
    now = {"arithmetic": determinism.process(), "changed": determinism.changed(),
           "files": sorted(project_files())}
    if reported != now:
        reported.update(now)
        say(**now)


def project_files() -> set[str]:
    """Return the sources below the project that are loaded or were opened, as relative paths."""
    project = os.environ["NBPROOF_PROJECT"] + os.sep
    environment = sys.prefix + os.sep  # usually inside the project
    modules = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    names = (name for name in modules | opened if isinstance(name, str))
    paths = {os.path.abspath(name) for name in names}  # noqa: PTH100 - thousands; Path is slow
    return {Path(path).relative_to(project).as_posix() for path in paths
            if path.startswith(project) and not path.startswith(environment)
            and path.endswith(SOURCES)}


def pack(message: object) -> bytes:
    """Return a message as JSON; half a character (a lone surrogate) costs only itself."""
    from jupyter_client.session import json_default, json_packer

    try:
        return json_packer(message)
    except UnicodeError:
        text = json.dumps(message, default=json_default, ensure_ascii=False)
        return text.encode(errors="replace")


if __name__ == "__main__":
    from nbproof.runner import kernel  # by its name, for IPython makes another module __main__

    # Registered first, so called last: taking large libraries apart costs a second for nothing.
    atexit.register(os._exit, 0)
    kernel.main()
