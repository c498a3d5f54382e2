"""Where only a notebook's prose or saved outputs changed, its results are still right."""

import hashlib
import json

import nbformat
from dvc.stage import PipelineStage

from nbproof.notebook.files import root, write_whole
from nbproof.pipeline.dag import Stage
from nbproof.runner import determinism, schema, source
from nbproof.runner.execute import cleaned


def only_notebook_differs(stage: Stage, dvc_stage: PipelineStage) -> bool:
    """Return whether command, results and all dependencies but the notebook are as recorded."""
    if stage.notebook is None or dvc_stage.cmd_changed:
        return False
    differing = {dep.def_path for dep in dvc_stage.deps if dep.workspace_status()}
    return differing == {stage.notebook} and all(
        out.hash_info and not out.workspace_status() for out in dvc_stage.outs)


def is_recorded_source(stage: Stage, dvc_stage: PipelineStage) -> bool:
    """Return whether dvc.lock records the notebook without the outputs that an editor saved."""
    text = source.text(source.strip(source.read(root() / stage.notebook)))
    md5 = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    return md5 in [dep.hash_info.value for dep in dvc_stage.deps]


def take_over(stage: Stage) -> bool:
    """Write the executed notebook with the new prose around the old outputs, where that is right:
    code and arithmetic are those of the last run. Return whether it was.
    """
    path = root() / "reports" / f"{stage.short}.ipynb"
    if not path.exists():
        return False
    earlier = json.loads(path.read_text(encoding="utf-8"))
    executed = with_outputs(source.read(root() / stage.notebook), earlier)
    if executed is None or executed.metadata.arithmetic != determinism.machine():
        return False
    write_whole(path, nbformat.writes(executed) + "\n")
    return True


def with_outputs(notebook: dict, earlier: dict) -> nbformat.NotebookNode | None:
    """Return `notebook` with the outputs of its executed copy; None where their code differs."""
    counted = source.counted(earlier["cells"])
    injected = [cell for cell in earlier["cells"] if cell not in counted]
    new, old = ([cell for cell in cells if cell["cell_type"] == "code"]
                for cells in (notebook["cells"], counted))
    if ([(source.code(cell), cell["metadata"]) for cell in new]
            != [(source.code(cell), cell["metadata"]) for cell in old]):
        return None
    for cell, ran in zip(new, old):
        cell.update(outputs=ran["outputs"], execution_count=ran["execution_count"])
    cells = []
    for cell in notebook["cells"]:
        cells += [cell, *injected] if schema.is_tagged(cell) else [cell]
    executed = cleaned(nbformat.reads(json.dumps(notebook | {"cells": cells}), as_version=4))
    executed.metadata.arithmetic = earlier["metadata"].get("arithmetic", "")
    return executed
