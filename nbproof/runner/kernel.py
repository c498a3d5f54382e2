"""The kernel's process: ipykernel, which reports after each cell what shapes the results.

What the notebook reads and writes is noted by an audit hook in this process and in the Python
processes that it starts: nbproof.runner.observer.
"""

import atexit
import contextlib
import importlib.util
import json
import logging
import os
import sys
import sysconfig
import warnings
from pathlib import Path

from nbproof.notebook.progress import say
from nbproof.runner import determinism
from nbproof.runner.observer import sitecustomize as observer

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
    app.initialize([*sys.argv[1:], f"--Session.packer={__name__}.pack"])
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
    read, written, databases = opened(Path(os.environ[observer.LOG]))
    now = {"arithmetic": determinism.process(), "changed": determinism.changed(),
           "read": sorted(read | modules()), "written": sorted(written),
           "databases": sorted(databases)}
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


def opened(log: Path) -> tuple[set[str], set[str], set[str]]:
    """Return the project's files that were read before anything wrote them, those written, and
    the databases of SQLite, of which it is not known."""
    paths = {"r": set(), "w": set(), "d": set()}
    for line in log.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        kind, path = line[:1], line[2:]
        is_compiled = "__pycache__" in path and path.endswith(".pyc")
        if is_compiled and kind == "w":
            continue
        with contextlib.suppress(ValueError):  # a cache of something else than Python
            path = importlib.util.source_from_cache(path) if is_compiled else path
            path = below_project(path)
            if path and not (kind == "r" and path in paths["w"]):
                paths[kind].add(path)
    return paths["r"], paths["w"], paths["d"]


def modules() -> set[str]:
    """Return the sources below the project that are loaded: Python may have read a compiled one."""
    names = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    paths = {below_project(os.path.abspath(name))  # noqa: PTH100 - thousands; Path is slow
             for name in names if isinstance(name, str) and name.endswith(".py")}
    return paths - {""}


def below_project(path: str) -> str:
    """Return `path` below the project; empty for one elsewhere, or in the environment inside."""
    project, environment = os.environ["NBPROOF_PROJECT"] + os.sep, sys.prefix + os.sep
    if not path.startswith(project) or path.startswith(environment):
        return ""
    return path[len(project):].replace(os.sep, "/")


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
