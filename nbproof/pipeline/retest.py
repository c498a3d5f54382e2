"""`nbproof test`: execute notebooks again as their stages do, and compare all that cells show."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator

import nbformat

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import dag
from nbproof.pipeline.dag import Stage
from nbproof.pipeline.run import alone
from nbproof.pipeline.stage import cell_timeout, find
from nbproof.runner import reaper, schema, secrets, source, varying
from nbproof.runner.execute import execute_notebook

HELD = ".dvc/tmp/test"  # the results, while a notebook writes them again


def retest(names: list[str]) -> int:
    """Execute the notebooks of the stages `names` (all) again; return 1 if an output differs.

    Results stay as they are. What notebooks log goes to MLflow's experiment `test`.
    """
    with dag.opened(root()) as repo:
        stages = dag.read(repo)
        wanted = [find(stages, name) for name in names] or [
            stage for stage in stages.values() if stage.notebook]
        stale = dag.changed(repo, [stage.name for stage in wanted])
    if stale:
        raise UserError(f"{', '.join(sorted(stale))} must run first: nbproof run.")
    differing = []
    with alone(), reaper.session() as session:
        for stage in wanted:
            lines = differences(stage, session)
            print(*lines or [f"{stage.short}: the same outputs"], sep="\n", flush=True)
            differing += lines
    return 1 if differing else 0


def differences(stage: Stage, session: reaper.Session) -> list[str]:
    """Execute the notebook of `stage`; return a line for each cell that shows something else."""
    notebook = root() / stage.notebook
    recorded = json.loads((root() / "reports" / f"{stage.short}.ipynb").read_text("utf-8"))
    mark = {reaper.MARK: session.mark(stage.name), "MLFLOW_EXPERIMENT_NAME": "test"}
    with results_held(stage):
        executed, failure = execute_notebook(
            notebook, schema.values_of(notebook, stage.values), cell_timeout(), root(),
            lambda event: None, mark, session.folder)
        session.end(stage.name)
    if failure:
        return [f"{stage.short}: {failure}"]
    secrets.take_out(executed)
    varying.number_ids(executed)
    written = json.loads(nbformat.writes(executed))
    pairs = zip(source.counted(recorded["cells"]), source.counted(written["cells"]))
    lines = []
    for number, (before, now) in enumerate(pairs, start=1):
        shown = first_difference(before.get("outputs", []), now.get("outputs", []))
        if shown and "nbval-ignore-output" not in now["metadata"].get("tags", []):
            lines.append(f"{stage.short}: cell {number} shows {shown}")
    return lines


@contextlib.contextmanager
def results_held(stage: Stage) -> Iterator[None]:
    """Move the outputs of `stage` aside for the block, and bring them back instead of new ones."""
    held = root() / HELD
    held.mkdir(parents=True, exist_ok=True)
    paths = {root() / path: held / str(number) for number, path in enumerate(stage.outputs)}
    for path, aside in paths.items():
        path.rename(aside)
    try:
        yield
    finally:
        for path, aside in paths.items():
            if path.is_dir():
                shutil.rmtree(path)
            aside.replace(path)
        held.rmdir()


def first_difference(before: list[dict], now: list[dict]) -> str:
    """Return where the outputs of a cell first differ, as text; empty where they are the same."""
    old, new = (json.dumps(outputs, sort_keys=True) for outputs in (before, now))
    start = max(0, len(os.path.commonprefix([old, new])) - 30)
    return "" if old == new else f"...{new[start:][:80]}... instead of ...{old[start:][:80]}..."
