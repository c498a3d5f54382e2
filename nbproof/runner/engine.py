"""Runs the cells of a notebook by papermill's client, in a kernel that was started before.

papermill takes half a second to import: nbproof.runner.execute does that while the kernel starts.
"""

import logging
import re
import sys

import nbclient.client

# papermill would import its stores in S3 and Hadoop, which take as long as all the rest of it.
STORES = [name for name in ("boto3", "pyarrow") if name not in sys.modules]
sys.modules.update(dict.fromkeys(STORES))
from papermill.clientwrap import PapermillNotebookClient  # noqa: E402
from papermill.engines import NotebookExecutionManager  # noqa: E402
from papermill.iorw import load_notebook_node  # noqa: E402
from papermill.parameterize import parameterize_notebook  # noqa: E402

for store in STORES:
    del sys.modules[store]

from nbproof.notebook.progress import EVENT  # noqa: E402
from nbproof.runner import StageFailure, source  # noqa: E402

# nbclient's own pattern, without the anchor, takes minutes for a line of a megabyte, which no cell
# timeout ends; both match the same. It is private, and there is no public way to change it.
nbclient.client._RGX_CARRIAGERETURN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)


def with_values(notebook, values: dict):
    """Return a notebook with the cell that papermill adds to set `values`."""
    for name in ("papermill", "traitlets", "nbclient"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what went wrong is said once, by us
    notebook = load_notebook_node(notebook)
    return parameterize_notebook(notebook, values, kernel_name=source.KERNEL["name"],
                                 language="python") if values else notebook


class StageClient(PapermillNotebookClient):
    """Runs every cell in order; whatever ends one early leaves as an exception.

    `reached` is the index of the cell at work; `arithmetic` and `fallback` are what the kernel
    has reported.
    """

    reached, arithmetic, changed = 0, "", ()

    def __init__(self, notebook, kernel, cell_timeout: float, on_event):
        super().__init__(
            NotebookExecutionManager(notebook, progress_bar=False), km=kernel,
            timeout=cell_timeout, startup_timeout=120, record_timing=False, coalesce_streams=True,
            force_raise_errors=True, skip_cells_with_tag="")
        self.on_event, self.fallback = on_event, {}

    def papermill_execute_cells(self) -> None:
        """Execute the cells, with an event before and after each."""
        total = len(source.counted(self.nb.cells))
        for index, cell in enumerate(self.nb.cells):
            self.reached = index
            number = len(source.counted(self.nb.cells[: index + 1]))
            self.on_event({"cell": number, "cells": total})
            self.execute_cell(cell, index)
            for output in cell.get("outputs", []):
                if output.output_type == "error":  # showtraceback(), %%capture, run_cell(...)
                    raise StageFailure(f"{output.ename}: {output.evalue} (shown, and not raised)")
            if self.changed:
                raise StageFailure(
                    f"the notebook does not compute as stages do ({'; '.join(self.changed)}): take "
                    "the line out that changes it, in the notebook or in what it imports")
            self.on_event({"ran": number})  # may raise StageFailure

    def process_message(self, msg, cell, cell_index):
        """Keep and pass on the events of the notebook; nbclient handles all other messages."""
        if msg["msg_type"] != EVENT:
            return super().process_message(msg, cell, cell_index)
        event = msg["content"]
        if "arithmetic" in event:
            self.arithmetic, self.changed = event["arithmetic"], event["changed"]
        self.fallback = event.get("fallback", self.fallback)
        self.on_event(event)
        return None
