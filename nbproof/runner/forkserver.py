"""Kernels that are forked from one process which has imported the project's large libraries.

Importing PyTorch takes two seconds of each kernel. Where project.yaml lists libraries as `preload`,
a run starts one server (multiprocessing's) that imports them once; its forks become kernels.
"""

import contextlib
import importlib.util
import multiprocessing
import os
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from multiprocessing import forkserver

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

from nbproof.notebook.errors import UserError
from nbproof.runner import preload

NAME = "nbproof-fork"


@contextlib.contextmanager
def serving(libraries: list[str], environment: dict[str, str]) -> Iterator[None]:
    """Fork the kernels of this block from a server with `libraries` and `environment`.

    The environment counts when a library is imported, so the server has that of a kernel. Whoever
    ends the session's processes ends the server.
    """
    for name in libraries:
        if not importlib.util.find_spec(name.partition(".")[0]):
            raise UserError(f"project.yaml: preload has {name}, which is not installed: take it "
                            "out, or add it to the requirements.")
    multiprocessing.get_context("forkserver").set_forkserver_preload([preload.__name__])
    ours = dict(os.environ)
    # pyarrow would start a thread, which no fork has.
    own = {preload.LIBRARIES: " ".join(libraries),
           "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    os.environ.clear()
    os.environ.update(environment | own)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(ours)
    factory = KernelProvisionerFactory.instance()
    factory.provisioners[NAME] = EntryPoint(NAME, f"{__name__}:ForkedKernel", factory.GROUP_NAME)
    default, factory.default_provisioner_name = factory.default_provisioner_name, NAME
    try:
        yield
    finally:
        factory.default_provisioner_name = default


class ForkedKernel(LocalProvisioner):
    """Starts a kernel as a fork of the server; all else is as for a kernel that is a program."""

    async def launch_kernel(self, cmd: list[str], **options):
        arguments = ["kernel", *cmd[cmd.index("-f"):]]
        process = multiprocessing.get_context("forkserver").Process(
            target=preload.become_kernel, args=(arguments, options["env"], options["cwd"]))
        process.start()
        self.process = Process(process)
        self.pid = self.pgid = process.pid
        self.cwd = options["cwd"]
        return self.connection_info


class Process:
    """A process of multiprocessing with the methods of subprocess.Popen that Jupyter calls."""

    stdin = stdout = stderr = None

    def __init__(self, process: multiprocessing.Process):
        self.process, self.pid = process, process.pid
        self.terminate, self.kill = process.terminate, process.kill

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)
