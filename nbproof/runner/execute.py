"""Executes a notebook and reports truthfully how far it came."""

import os
import re
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.utils import run_sync

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.runner import determinism, forkserver, reaper, source
from nbproof.runner.observer.sitecustomize import LOG

IMPORTED = re.compile(r"(?:No module named|cannot import name) '(\w+)")
MODULE_LINE = re.compile(r"(?m)^File (\S+):(\d+)")
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # a terminal's colours and commands
Events = Callable[[dict], None]


@dataclass
class Failure:
    """The cell that did not run to its end, and why.

    `cell` counts from 1 as in the source, Markdown too; `line` is the one that failed. `fallback`
    is a parameter and the value that would avoid the failure, where the notebook knows one.
    """

    cell: int
    line: str
    error: str
    reason: str
    fallback: dict = field(default_factory=dict)

    def __str__(self) -> str:
        return f"cell {self.cell} ({self.line}): {self.error}: {self.reason}"


class NotebookKernel(AsyncKernelManager):
    """ipykernel of this interpreter, over files instead of ports where the system has them."""

    def format_kernel_cmd(self, extra_arguments=None) -> list[str]:
        emulator = shlex.split(os.environ.get("NBPROOF_EMULATOR", ""))  # of another processor
        options = ["--HistoryManager.hist_file=:memory:", "--log-level=CRITICAL"]
        return [*emulator, sys.executable, "-m", "nbproof.runner.kernel",
                "-f", self.connection_file, *options]


def start_kernel(folder: str, working_folder: Path, variables: dict[str, str]) -> NotebookKernel:
    """Start a kernel of this environment, whose sockets are in `folder`; it may not answer yet."""
    ours = KernelSpecManager(kernel_dirs=[str(Path(sys.prefix) / "share" / "jupyter" / "kernels")])
    manager = NotebookKernel(kernel_name=source.KERNEL["name"], kernel_spec_manager=ours,
                             connection_file=str(Path(folder) / "kernel.json"))
    if os.name != "nt":  # others can connect to loopback ports, and two kernels can race for one
        manager.transport, manager.ip = "ipc", str(Path(folder) / "ipc")
    if forkserver.is_running:
        manager.provisioner = forkserver.ForkedKernel(kernel_spec=manager.kernel_spec,
                                                      parent=manager)
    run_sync(manager.start_kernel)(cwd=str(working_folder), env=variables | {"IPYTHONDIR": folder})
    return manager


def execute_notebook(
    notebook: Path, values: dict, cell_timeout: float, output_root: Path, on_event: Events,
    mark: dict[str, str] | None = None, folder: Path | None = None,
) -> tuple[nbformat.NotebookNode, Failure | None]:
    """Execute `notebook` with `values`; return the executed copy and what stopped it, if anything.

    `cell_timeout` is in seconds; the notebook writes below `output_root`. `on_event` gets events,
    in this thread: {"cell", "cells"} before a cell, {"ran"} after it, and what the notebook sends
    (nbproof.notebook.progress); a StageFailure that it raises fails that cell. `mark` is added to
    the kernel's environment, `folder` holds its sockets. The copy has nothing that varies.
    """
    text = source.text(source.strip(source.read(notebook)))
    node, failure = nbformat.reads(text, as_version=4), None
    variables = determinism.environment(output_root) | {"NBPROOF_PROJECT": str(root())}
    with tempfile.TemporaryDirectory(prefix="k", dir=folder or reaper.TEMPORARY) as sockets:
        variables |= {LOG: str(Path(sockets) / "observed")} | (mark or {})
        try:
            kernel = start_kernel(sockets, notebook.parent, variables)
        except OSError as error:  # of the machine: no room, no memory
            raise UserError(f"{notebook.name} could not be started: {error}.") from None
        from nbproof.runner import engine  # takes half a second, as the kernel does

        client = engine.StageClient(engine.with_values(node, values), kernel, cell_timeout,
                                    on_event)
        try:
            client.execute(cleanup_kc=True)
        except Exception as error:  # of the cell or the kernel: the stage's failure
            failure = error
    executed = cleaned(client.nb)
    executed.metadata.arithmetic = client.arithmetic
    if failure:
        failure = mark_failure(executed, client.reached, failure)
        if failure.error == "Fallback":  # and none that the notebook has caught
            failure.fallback = client.fallback
    return executed, failure


def printable(text: str) -> str:
    """Return `text` without what does something to a terminal."""
    return "".join(char for char in ANSI.sub("", text) if char.isprintable() or char == "\n")


def one_line(text: str) -> str:
    """Return `text` on one line of at most 1,000 printable characters."""
    return printable(" ".join(text.split())).strip()[:1000]


def mark_failure(notebook: nbformat.NotebookNode, reached: int, error: Exception) -> Failure:
    """Note in the notebook which cell failed, and show its error there."""
    cell = notebook.cells[reached]
    if hasattr(error, "ename"):  # nbclient's, of an exception in the cell
        name, reason = one_line(error.ename), error.evalue
    else:
        name, reason = type(error).__name__, str(error) or "the kernel gave no answer"
    if name == "DeadKernelError":
        reason = ("the kernel died while this cell ran (killed, out of memory, or ended by the "
                  "cell itself)")
    line, module = failing_line(cell)
    reason = one_line(reason) + module
    if cell.cell_type == "code" and not any(out.output_type == "error" for out in cell.outputs):
        output = nbformat.v4.new_output("error", ename=name, evalue=reason,
                                        traceback=[f"{name}: {reason}"])
        cell.outputs.append(output)
    number = len(source.counted(notebook.cells[: reached + 1]))
    failure = Failure(number, line, name, reason)
    notebook.metadata.failure = {"cell": number, "error": name, "reason": reason}
    return failure


def failing_line(cell: nbformat.NotebookNode) -> tuple[str, str]:
    """Return the line of a cell that failed, and where that was in a module of the project.

    Without a traceback of its own it is the cell's first line."""
    shown = ANSI.sub("", "\n".join(line for output in cell.get("outputs", [])
                                   for line in output.get("traceback", [])))
    # The last one: an error that was the cause of another may come from a longer cell.
    head = rf"^\s*Cell In\[{cell.get('execution_count')}\], line (\d+)"
    *_, mark = None, *re.finditer(head, shown, re.MULTILINE)
    lines, number = cell.source.splitlines(), int(mark[1]) if mark else 0
    first = next(filter(str.strip, lines), "empty")
    line = lines[number - 1] if 0 < number <= len(lines) else first
    files = [(Path(name).expanduser(), number) for name, number in MODULE_LINE.findall(
        shown[mark.end() if mark else 0:])]
    own = [f" (in {file.relative_to(root()).as_posix()}, line {number})" for file, number in files
           if file.is_relative_to(root()) and not file.is_relative_to(sys.prefix)]
    return textwrap.shorten(one_line(line), 60, placeholder=" ..."), own[-1] if own else ""


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove what papermill and the kernel note about one run; outputs and counts stay."""
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
    source.strip(notebook, outputs=True)
    return notebook
