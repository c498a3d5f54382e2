"""Runs the cells of a notebook by papermill, in a kernel that was started before.

papermill takes half a second to import: nbproof.runner.execute does that while the kernel starts.
"""

import logging
import re
import sys

import nbclient.client

# papermill would import its stores in S3 and Hadoop, which take as long as all the rest of it.
STORES = [name for name in ("boto3", "pyarrow") if name not in sys.modules]
sys.modules.update(dict.fromkeys(STORES))
import papermill  # noqa: E402
from papermill.clientwrap import PapermillNotebookClient  # noqa: E402
from papermill.engines import NBClientEngine, papermill_engines  # noqa: E402

for store in STORES:
    del sys.modules[store]

from nbproof.notebook.progress import EVENT  # noqa: E402
from nbproof.runner import StageFailure, source  # noqa: E402

# nbclient's own pattern, without the anchor, takes minutes for a line of a megabyte, which no cell
# timeout ends; both match the same. It is private, and there is no public way to change it.
nbclient.client._RGX_CARRIAGERETURN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)


class StageClient(PapermillNotebookClient):
    """Runs every cell in order; whatever ends one early leaves as an exception."""

    on_event = staticmethod(print)
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
                raise StageFailure("the cell ends the kernel; a stage runs every cell")
            if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
                raise StageFailure("the cell was skipped; a stage runs every cell")
            for output in cell.get("outputs", []):
                if output.output_type == "error":  # showtraceback(), %%capture, run_cell(...)
                    raise StageFailure(f"{output.ename}: {output.evalue} (shown, and not raised)")
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
    def execute_managed_notebook(cls, nb_man, kernel_name, attempt, cell_timeout, **_):
        client = StageClient(
            nb_man, km=attempt.kernel, kernel_name=kernel_name, timeout=cell_timeout,
            startup_timeout=120, record_timing=False, coalesce_streams=True,
            force_raise_errors=True, skip_cells_with_tag="",
        )
        client.on_event = attempt.on_event
        attempt.client = client
        client.execute(cleanup_kc=True)


papermill_engines.register("stage", StageEngine)


def run_cells(notebook, values: dict, cell_timeout: float, attempt) -> None:
    """Execute a notebook with `values` in the kernel of `attempt`, whose client it becomes."""
    for name in ("papermill", "traitlets", "nbclient"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what went wrong is said once, by us
    # papermill formats the braces of a path, and changes this process's folder: it gets neither.
    papermill.execute_notebook(
        notebook, None, parameters=values, engine_name="stage", language="python",
        kernel_name=source.KERNEL["name"], progress_bar=False, attempt=attempt,
        cell_timeout=cell_timeout)
