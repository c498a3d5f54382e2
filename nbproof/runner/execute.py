"""Executes a notebook by papermill and reports truthfully how far it came."""

import logging
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nbclient.client
import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient.exceptions import CellExecutionError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.notebook.progress import EVENT
from nbproof.runner import determinism, reaper, source

# nbclient's own pattern, without the anchor, takes minutes for a line of a megabyte, which no cell
# timeout ends; both match the same. It is private, and there is no public way to change it.
nbclient.client._RGX_CARRIAGERETURN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # a terminal's colours and commands
Events = Callable[[dict], None]


@dataclass
class Failure:
    """The cell that did not run to its end, and why.

    `cell` counts from 1 as in the source, Markdown too; `line` is its first line. `fallback` is a
    parameter and the value that would avoid the failure, where the notebook knows one.
    """

    cell: int
    line: str
    error: str
    reason: str
    fallback: dict = field(default_factory=dict)

    def __str__(self) -> str:
        return f"cell {self.cell} ({self.line}): {self.error}: {self.reason}"


class StageFailure(RuntimeError):
    """A cell ran, and what it did or showed fails the stage."""


class NotebookKernel(AsyncKernelManager):
    """ipykernel of this interpreter, over files instead of ports where the system has them."""

    def format_kernel_cmd(self, extra_arguments=None) -> list[str]:
        emulator = shlex.split(os.environ.get("NBPROOF_EMULATOR", ""))  # of another processor
        options = ["--HistoryManager.hist_file=:memory:", "--log-level=CRITICAL"]
        return [*emulator, sys.executable, "-m", "nbproof.runner.kernel",
                "-f", self.connection_file, *options]


class StageClient(PapermillNotebookClient):
    """Runs every cell in order; whatever ends one early leaves as an exception."""

    on_event: Events = staticmethod(print)
    reached, asked_to_exit = 0, False

    def papermill_execute_cells(self) -> None:
        """Execute the cells; `reached` is the index of the one at work."""
        self.on_cell_executed = self._look_for_exit
        total = len(source.counted(self.nb.cells))
        for index, cell in enumerate(self.nb.cells):
            self.reached = index
            number = len(source.counted(self.nb.cells[: index + 1]))
            self.on_event({"cell": number, "cells": total})
            self.execute_cell(cell, index)
            if self.asked_to_exit:  # the kernel ends a moment later, in whatever cell it is by then
                raise StageFailure("the cell asked the kernel to exit; a stage runs every cell")
            if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
                raise StageFailure("the cell was skipped; a stage runs every cell")
            self.on_event({"ran": number})  # may raise StageFailure

    def process_message(self, msg, cell, cell_index):
        """Pass on the events of the notebook; nbclient handles all other messages."""
        if msg["msg_type"] == EVENT:
            self.on_event(msg["content"])
            return None
        return super().process_message(msg, cell, cell_index)

    def _look_for_exit(self, cell, cell_index, execute_reply) -> None:
        """IPython's exit() and quit() raise nothing: they leave a request in the cell's reply."""
        payload = execute_reply["content"].get("payload", [])
        self.asked_to_exit = any(request.get("source") == "ask_exit" for request in payload)


class StageEngine(NBClientEngine):
    """The papermill engine of stages, which records nothing that varies between runs."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, attempt, cell_timeout, environment,
                                 sockets, working_folder, **_):
        client = StageClient(
            nb_man, timeout=cell_timeout, startup_timeout=120, record_timing=False,
            coalesce_streams=True, force_raise_errors=True, skip_cells_with_tag="",
            kernel_name=kernel_name, kernel_manager_class=NotebookKernel,
        )
        client.on_event = attempt.on_event
        attempt.client = client
        client.km = kernel_manager(kernel_name, sockets)
        client.execute(cleanup_kc=True, cwd=working_folder,
                       env=environment | {"IPYTHONDIR": sockets})


def kernel_manager(kernel_name: str, folder: str) -> NotebookKernel:
    """Return a manager for a kernel of this environment, whose sockets are in `folder`."""
    ours = KernelSpecManager(kernel_dirs=[str(Path(sys.prefix) / "share" / "jupyter" / "kernels")])
    connection = str(Path(folder) / "kernel.json")
    manager = NotebookKernel(kernel_name=kernel_name, connection_file=connection,
                             kernel_spec_manager=ours)
    if os.name != "nt":  # others can connect to loopback ports, and two kernels can race for one
        manager.transport, manager.ip = "ipc", str(Path(folder) / "ipc")
    return manager


papermill_engines.register("stage", StageEngine)


class Attempt:
    """What is known of one execution while it goes on: the client, and what the kernel reports."""

    def __init__(self, on_event: Events):
        self.client: StageClient | None = None
        self.arithmetic, self.changed, self.fallback = "", [], {}
        self.pass_on = on_event

    def on_event(self, event: dict) -> None:
        """Keep what the kernel reports of itself; pass all events on."""
        if "arithmetic" in event:
            self.arithmetic, self.changed = event["arithmetic"], event["changed"]
        if "fallback" in event:
            self.fallback = event["fallback"]
        elif "ran" in event and self.changed:
            raise StageFailure(
                f"the notebook does not compute as stages do ({'; '.join(self.changed)}): take the "
                "line out that changes it, in the notebook or in what it imports")
        self.pass_on(event)


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
    for name in ("papermill", "traitlets", "nbclient"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what went wrong is said once, by us
    attempt, failure = Attempt(on_event), None
    environment = determinism.environment(output_root) | (mark or {})
    # papermill formats a path's braces, and changes this process's folder: it gets neither.
    text = source.text(source.strip(source.read(notebook)))
    node = nbformat.reads(text, as_version=4)
    with tempfile.TemporaryDirectory(prefix="k", dir=folder or reaper.short_folder()) as sockets:
        try:
            papermill.execute_notebook(
                node, None, parameters=values, engine_name="stage", progress_bar=False,
                kernel_name=source.KERNEL["name"], language="python", attempt=attempt,
                cell_timeout=cell_timeout,
                environment=environment | {"NBPROOF_PROJECT": str(root())}, sockets=sockets,
                working_folder=str(notebook.parent),
            )
        except Exception as error:  # of the cell, the kernel or the machine: the stage's failure
            if attempt.client is None:
                reason = " ".join(str(error).split())[:200]
                raise UserError(f"{notebook.name} could not be started: {type(error).__name__}: "
                                f"{reason}") from None
            failure = mark_failure(attempt.client.nb, attempt.client.reached, error)
            if attempt.fallback and one_line(attempt.fallback.pop("message")) == failure.reason:
                failure.fallback = attempt.fallback
    executed = cleaned(attempt.client.nb)
    executed.metadata.arithmetic = attempt.arithmetic
    return executed, failure


def printable(text: str) -> str:
    """Return `text` without what does something to a terminal."""
    return "".join(char for char in ANSI.sub("", text) if char.isprintable() or char == "\n")


def one_line(text: str) -> str:
    """Return `text` on one line of at most 1,000 printable characters."""
    return printable(" ".join(text.split())).strip()[:1000]


def mark_failure(notebook: nbformat.NotebookNode, reached: int, error: Exception) -> Failure:
    """Show in the notebook which cell failed: its error, and no trace of a run in later cells."""
    cell = notebook.cells[reached]
    if isinstance(error, CellExecutionError):
        name, reason = one_line(error.ename), error.evalue
    else:
        name, reason = type(error).__name__, str(error) or "the kernel gave no answer"
    if name == "DeadKernelError":
        reason = ("the kernel died while this cell ran (killed, out of memory, or ended by the "
                  "cell itself)")
    reason = one_line(reason)
    if cell.cell_type == "code" and not any(out.output_type == "error" for out in cell.outputs):
        output = nbformat.v4.new_output("error", ename=name, evalue=reason,
                                        traceback=[f"{name}: {reason}"])
        cell.outputs.append(output)
    for later in notebook.cells[reached + 1 :]:
        if later.cell_type == "code":
            later.outputs, later.execution_count = [], None
    lines = cell.source.strip().splitlines()
    number = len(source.counted(notebook.cells[: reached + 1]))
    failure = Failure(number, one_line(lines[0])[:60] if lines else "empty", name, reason)
    notebook.metadata.failure = {"cell": number, "error": name, "reason": reason}
    return failure


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove what papermill and the kernel note about one run; outputs and counts stay."""
    ran = [(cell.outputs, cell.execution_count) if cell.cell_type == "code" else None
           for cell in notebook.cells]
    failure = notebook.metadata.get("failure")
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
    source.strip(notebook)
    for cell, result in zip(notebook.cells, ran):
        if result:
            cell.outputs, cell.execution_count = result
    if failure:
        notebook.metadata.failure = failure
    return notebook
