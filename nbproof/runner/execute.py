"""Executes a notebook by papermill and says truthfully how far it came."""

import contextlib
import functools
import json
import logging
import os
import re
import shlex
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import nbclient.client
import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner
from nbclient.exceptions import CellExecutionError

from nbproof.notebook.errors import UserError
from nbproof.notebook.progress import STEP
from nbproof.runner import determinism, forked, sockets
from nbproof.runner.source import KERNEL, counted, strip


@contextlib.contextmanager
def without(*modules: str) -> Iterator[None]:
    """Imports inside the block find none of `modules`, which take long and do nothing here."""
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


with without("papermill.s3", "pyarrow"):  # for notebooks in the cloud, of which papermill imports half a second
    import papermill
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines

# nbclient's own pattern, without the anchor, takes minutes for a line of a megabyte, which no cell timeout ends; both
# match the same. It is private, and there is no public way to change it.
nbclient.client._RGX_CARRIAGERETURN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # a terminal's colours and commands


@dataclass(frozen=True)
class Failure:
    """The cell that did not run to its end (counted from 1 as in the source, Markdown too), its first line, why."""

    cell: int
    line: str
    error: str
    reason: str

    def __str__(self) -> str:
        return f"cell {self.cell} ({self.line}): {self.error}: {self.reason}"


class NotebookKernel(AsyncKernelManager):
    """ipykernel of this interpreter, over files instead of ports where the system has them; it dies with us."""

    def format_kernel_cmd(self, extra_arguments=None) -> list[str]:
        history = "--HistoryManager.hist_file=:memory:"
        quiet = "--log-level=CRITICAL"  # what went wrong is said once, by us
        emulator = shlex.split(os.environ.get("NBPROOF_EMULATOR", ""))  # of another processor, in tests
        return [*emulator, sys.executable, "-m", forked.MODULE, "-f", self.connection_file, history, quiet]


class Provisioner(LocalProvisioner):
    """Jupyter's own way to start a kernel, which asks the run's warm process for it first."""

    async def launch_kernel(self, cmd, **kwargs):
        folder = kwargs.get("cwd") or str(Path.cwd())
        kernel = forked.fork(cmd, folder, kwargs["env"])
        if kernel is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process, self.pid, self.cwd = kernel, kernel.pid, folder
        return self.connection_info


class KernelExit(RuntimeError):
    """A cell asked the kernel to exit."""


class EveryCellClient(PapermillNotebookClient):
    """Runs the cells in order; whatever ends one early leaves as an exception, with the cell's place in `reached`."""

    reached, asked_to_exit = 0, False

    def papermill_execute_cells(self) -> None:
        self.on_cell_executed = self._look_for_exit
        for index, cell in enumerate(self.nb.cells):
            self.reached = index
            self.tell({"cell": len(counted(self.nb.cells[: index + 1])), "cells": len(counted(self.nb.cells))})
            self.execute_cell(cell, index)
            if self.asked_to_exit:  # the kernel ends a moment later, in whatever cell it is by then
                raise KernelExit("the cell asked the kernel to exit; a stage runs every cell")
            if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
                raise RuntimeError("the cell was skipped; a stage runs every cell")

    def _look_for_exit(self, cell, cell_index, execute_reply) -> None:
        """IPython's exit() and quit() raise nothing: they leave a request in the cell's reply."""
        payload = execute_reply["content"].get("payload", [])
        self.asked_to_exit = any(request.get("source") == "ask_exit" for request in payload)


class StageEngine(NBClientEngine):
    """The papermill engine of stages: records nothing that varies between runs; `record` gets notebook and client."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, record, environment, cell_timeout, **_):
        with sockets.folder("kernel-") as folder:
            client = EveryCellClient(
                nb_man, timeout=cell_timeout, startup_timeout=120, record_timing=False, coalesce_streams=True,
                force_raise_errors=True, skip_cells_with_tag="", kernel_name=kernel_name,
                kernel_manager_class=NotebookKernel,
            )
            client.tell = record["tell"]
            record.update(notebook=nb_man.nb, client=client)
            connection = str(Path(folder) / "kernel.json")
            ours = KernelSpecManager(kernel_dirs=[str(Path(sys.prefix) / "share" / "jupyter" / "kernels")])
            client.km = NotebookKernel(
                kernel_name=kernel_name, connection_file=connection, kernel_spec_manager=ours)
            if os.name != "nt":  # loopback ports are for everyone on the machine, and two kernels can race for one
                client.km.transport, client.km.ip = "ipc", str(Path(folder) / "ipc")
            client.execute(cleanup_kc=True, env=environment | {"IPYTHONDIR": folder})


papermill_engines.register("stage", StageEngine)
# An entry point that is not installed: a source tree has none, and JupyterLab's kernels are none of its business.
provisioner = EntryPoint("nbproof", f"{__name__}:Provisioner", KernelProvisionerFactory.GROUP_NAME)
kernel_provisioners = KernelProvisionerFactory.instance()
kernel_provisioners.provisioners[provisioner.name] = provisioner
kernel_provisioners.default_provisioner_name = provisioner.name


def execute(
    notebook: Path, values: dict, cell_timeout: float, output_root: Path,
    on_event: Callable[[dict], None] | None = None,
) -> tuple[nbformat.NotebookNode, Failure | None]:
    """The executed copy of `notebook` with `values` injected, and the failure that stopped it, if one did.

    `cell_timeout` is in seconds; the notebook writes below `output_root`. What it says while it works goes to
    `on_event`, from another thread, else to the terminal. The copy holds nothing that varies from run to run.
    """
    logging.getLogger("papermill").setLevel(logging.ERROR)
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)  # what went wrong is said once, by us
    failure, remedies, computed = None, [], {}
    record = {"tell": (lambda event: None) if on_event else functools.partial(print_event, notebook.stem)}
    on_event = on_event or record["tell"]

    def heard(event: dict) -> None:
        if "arithmetic" in event:
            computed.update(event)
        elif "remedy" in event:
            remedies.append(event["remedy"])
        else:
            on_event(event)

    with tempfile.TemporaryDirectory(prefix="progress-") as folder:
        events = Path(folder) / "events.jsonl"
        events.touch()
        ended = threading.Event()
        reader = threading.Thread(target=_follow, args=(events, ended, heard))
        reader.start()
        try:
            papermill.execute_notebook(
                str(notebook), None, parameters=values, engine_name="stage", kernel_name=KERNEL["name"],
                progress_bar=False, cwd=str(notebook.parent), record=record,
                environment=determinism.environment(output_root, events), cell_timeout=cell_timeout,
            )
        except Exception as error:  # of the cell, the kernel or the machine: each becomes the stage's failure
            if "client" not in record:
                said = " ".join(str(error).split())[:200]
                raise UserError(f"{notebook.name} could not be started: {type(error).__name__}: {said}") from None
            failure = _mark(record["notebook"], record["client"].reached, error)
        finally:
            ended.set()
            reader.join()
    if failure and remedies and _line(remedies[-1].pop("message")) == failure.reason:  # it was not caught
        record["notebook"].metadata.failure["remedy"] = remedies[-1]
    if computed.get("changed"):
        raise UserError(f"{notebook.name} did not compute as stages do ({'; '.join(computed['changed'])}): take the line "
                      "out that changes it, in the notebook or in what it imports.")
    executed = cleaned(record["notebook"])
    executed.metadata.arithmetic = computed.get("arithmetic", "")
    return executed, failure


def print_event(name: str, event: dict) -> None:
    """Show what a notebook says while it works: a message, or a step with its metrics; a live table gets JSON."""
    cell, step = set(event) == {"cell", "cells"}, set(event) == STEP
    if os.environ.get("NBPROOF_LIVE") and (cell or step):
        print(f"\x1e{json.dumps(event)}", flush=True)
        return
    if cell:
        return
    if step:
        metrics = (f"{key} {value:.4g}" for key, value in event["metrics"].items())
        parts = [f"{event['unit']} {event['step']}/{event['steps']}", *metrics, f"{event['seconds']:.1f} s"]
    else:
        parts = [event["message"]] if "message" in event else [f"{key} {value}" for key, value in event.items()]
    print(f"{name}:", _plain("  ".join(parts)), flush=True)


def _follow(path: Path, ended: threading.Event, on_event: Callable[[dict], None]) -> None:
    """Pass on event by event until `ended`; a line that a full disk cut short is left out."""
    with path.open(encoding="utf-8", errors="replace") as file:
        last, begun = False, ""
        while not last:
            last = ended.wait(0.2)
            for line in file:
                begun += line
                if not begun.endswith("\n"):
                    continue
                line, begun = begun, ""
                try:
                    event = dict(json.loads(line))
                except (ValueError, TypeError):
                    continue
                on_event(event)


def _plain(text: str) -> str:
    """`text` without what does something to a terminal."""
    return "".join(each for each in ANSI.sub("", text) if each.isprintable() or each == "\n")


def _line(text: str) -> str:
    return _plain(" ".join(text.split()))[:1000]


def _mark(notebook: nbformat.NotebookNode, reached: int, error: Exception) -> Failure:
    """Show in the notebook which cell failed: its error among its outputs, no trace of a run in later cells."""
    cell = notebook.cells[reached]
    if isinstance(error, CellExecutionError):
        name, reason = _line(error.ename), error.evalue
    else:
        name, reason = type(error).__name__, str(error) or "the kernel gave no answer"
    if name == "DeadKernelError":
        reason = "the kernel died while this cell ran (killed, out of memory, or ended by the cell itself)"
    reason = _line(reason)
    if cell.cell_type == "code" and not any(output.output_type == "error" for output in cell.outputs):
        cell.outputs.append(nbformat.v4.new_output("error", ename=name, evalue=reason, traceback=[f"{name}: {reason}"]))
    for later in notebook.cells[reached + 1 :]:
        if later.cell_type == "code":
            later.outputs, later.execution_count = [], None
    written = cell.source.strip().splitlines()
    line, number = _line(written[0])[:60] if written else "empty", len(counted(notebook.cells[: reached + 1]))
    failure = Failure(number, line, name, reason)
    notebook.metadata.failure = {"cell": failure.cell, "error": name, "reason": reason}
    return failure


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take out what papermill and the kernel note about this one run; outputs and execution counts stay."""
    ran = [(cell.outputs, cell.execution_count) if cell.cell_type == "code" else None for cell in notebook.cells]
    failure = notebook.metadata.get("failure")
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
    strip(notebook)
    for cell, kept in zip(notebook.cells, ran):
        if kept:
            cell.outputs, cell.execution_count = kept
    if failure:
        notebook.metadata.failure = failure
    return notebook
