"""Kernels that are forked from one process which has imported the project's large libraries.

Importing PyTorch takes two seconds of each kernel. Where project.yaml lists libraries as `preload`,
a run starts one server (multiprocessing's) that imports them once; its forks become kernels.
"""

import atexit
import contextlib
import gc
import importlib.util
import multiprocessing
import os
import sys
import sysconfig
from collections.abc import Iterator
from multiprocessing import forkserver

from jupyter_client.provisioning import LocalProvisioner

from nbproof.notebook.errors import UserError

# These decide while they are imported whether they are in a notebook, or read a terminal's size: a
# fork that has them shows other outputs than a kernel that imports them.
NOT_BEFORE_THE_KERNEL = {"IPython", "ipykernel", "matplotlib"}
context = multiprocessing.get_context("forkserver")
is_running = False


@contextlib.contextmanager
def serving(libraries: list[str], environment: dict[str, str]) -> Iterator[None]:
    """Fork the kernels of this block from a server with `libraries` and `environment`.

    The environment counts when a library is imported, so the server has that of a kernel. Whoever
    ends the session's processes ends the server.
    """
    global is_running
    for name in libraries:  # multiprocessing passes over what it cannot import
        if not importlib.util.find_spec(name.partition(".")[0]):
            raise UserError(f"project.yaml: preload has {name}, which is not installed: take it "
                            "out, or add it to the requirements.")
    context.set_forkserver_preload(libraries)
    ours = dict(os.environ)
    # pyarrow would start a thread, which no fork has.
    set_environment(environment | {"JE_ARROW_MALLOC_CONF": "background_thread:false"})
    try:
        forkserver.ensure_running()
    finally:
        set_environment(ours)
    is_running = True
    try:
        yield
    finally:
        is_running = False


def set_environment(variables: dict[str, str]) -> None:
    """Let this process have `variables` and no others."""
    os.environ.clear()
    os.environ.update(variables)


class ForkedProcess(context.Process):
    """A fork of the server, with the methods of subprocess.Popen that Jupyter calls."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.join(timeout)
        return self.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


class ForkedKernel(LocalProvisioner):
    """Starts a kernel as a fork of the server; all else is as for a kernel that is a program."""

    async def launch_kernel(self, cmd: list[str], **options):
        arguments = ["kernel", *cmd[cmd.index("-f"):]]
        self.process = ForkedProcess(
            target=become_kernel, args=(arguments, options["env"], options["cwd"]))
        self.process.start()
        self.pid = self.pgid = self.process.pid
        self.cwd = options["cwd"]
        return self.connection_info


def become_kernel(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """Serve one notebook in this fork, as a process that was started for it would; do not return.

    `folder` is the working folder.
    """
    os.setsid()  # a group of its own: what a cell forks is ended with it
    set_environment(environment)
    os.chdir(folder)
    scripts = sysconfig.get_path("scripts")  # where the command nbproof is
    ours = environment.get("PYTHONPATH", "").split(os.pathsep)  # of a project's notebooks, say
    sys.path[:] = dict.fromkeys(
        [folder, *(path for path in [*ours, *sys.path] if path and path != scripts)])
    sys.argv = arguments
    sys.dont_write_bytecode = False  # a flag of the run's that a started kernel does not have
    gc.freeze()  # collections leave the server's objects alone, and so their memory shared
    if wrong := sorted(NOT_BEFORE_THE_KERNEL & sys.modules.keys()):
        sys.stderr.write(f"project.yaml: preload must not import {', '.join(wrong)}, which look on "
                         "import whether they are in a notebook: take the library that does out.\n")
        os._exit(1)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
        del sys.modules[name]  # torch imports it for its downloads: a notebook's tqdm is its own
    if "pandas" in sys.modules:  # which shows as many columns as fit where it finds a terminal
        sys.modules["pandas"].set_option("display.max_columns", 20)
    if "numpy" in sys.modules:  # else all forks have one state; Python's own random starts anew
        sys.modules["numpy"].random.seed()
    from nbproof.runner import kernel

    kernel.main()
    atexit._run_exitfuncs()  # a fork does not call what a notebook has registered, as programs do
    os._exit(0)  # taking large libraries apart costs a second for nothing
