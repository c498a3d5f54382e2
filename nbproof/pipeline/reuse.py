"""Where only a notebook's text changed, its earlier results are right: they are taken from DVC's cache."""

import json
import os
import shutil
from pathlib import Path

from dvc.repo import Repo
from dvc.stage import PipelineStage

from nbproof.notebook.files import root, write_whole
from nbproof.pipeline.dag import Stage, dvc_stage
from nbproof.runner import determinism, source, write_reports
from nbproof.workspace import git


def take_over(repo: Repo, stage: Stage) -> bool:
    """Put the results of the last run in place, with a page of the new text; False where more than text differs.

    The code cells, the parameters, every dependency and the arithmetic must be those of the last run, and its results
    in DVC's cache or in git.
    """
    theirs = dvc_stage(repo, stage.name)
    if os.environ.get("NBPROOF_FORCE") or not _same_beside_notebook(theirs, stage.notebook):
        return False
    kept = {out.def_path: _kept(repo, out) for out in theirs.outs}
    report = f"reports/{stage.short}.ipynb"
    if None in kept.values() or not isinstance(kept.get(report), Path):
        return False
    earlier = json.loads(kept[report].read_text(encoding="utf-8"))
    executed = with_outputs(source.read(root() / stage.notebook), earlier)
    if executed is None or earlier["metadata"].get("arithmetic") != determinism.machine():
        return False
    for out in theirs.outs:
        if out.def_path in (report, f"reports/{stage.short}.html"):
            continue
        if isinstance(kept[out.def_path], bytes):
            write_whole(root() / out.def_path, kept[out.def_path])
        elif out.hash_info.isdir:
            out.checkout(force=True)
        else:
            (root() / out.def_path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kept[out.def_path], root() / out.def_path)
    write_reports(stage.short, executed, (root() / stage.notebook).parent)
    return True


def _same_beside_notebook(stage: PipelineStage, notebook: str) -> bool:
    """Whether the stage's command and all its dependencies but `notebook`, which must differ, are as recorded."""
    if stage.cmd_changed or not all(out.hash_info for out in stage.outs):
        return False
    return all((dep.get_hash() == dep.hash_info) == (dep.def_path != notebook) for dep in stage.deps)


def _kept(repo: Repo, out) -> Path | bytes | None:
    """The cache's copy of an output, or the commit's content of a file that git has; None where neither is right."""
    cached = Path(repo.cache.local.oid_to_path(out.hash_info.value))
    if cached.exists() and (not out.hash_info.isdir or not out.changed_cache()):
        return cached
    content = git.at("HEAD", out.def_path)
    right = content is not None and out.hash_name == "md5" and _md5(content) == out.hash_info.value
    return content if right else None


def _md5(content: bytes) -> str:
    import hashlib

    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def with_outputs(notebook: dict, earlier: dict):
    """`notebook` with the outputs of its executed copy `earlier`; None where their code cells differ.

    Both are plain JSON; the result is a notebook as stage.execute gives it.
    """
    import nbformat

    from nbproof.runner.execute import cleaned

    ran = [cell for cell in earlier["cells"] if cell["cell_type"] == "code"]
    cells = []
    for cell in notebook["cells"]:
        cells.append(cell)
        if cell["cell_type"] != "code":
            continue
        then = ran.pop(0) if ran else {}
        if not then or source.code(then) != source.code(cell) or then["metadata"] != cell["metadata"]:
            return None
        cell.update(outputs=then["outputs"], execution_count=then["execution_count"])
        if ran and "injected-parameters" in ran[0]["metadata"].get("tags", []):
            cells.append(ran.pop(0))
    if ran or "failure" in earlier["metadata"]:
        return None
    executed = cleaned(nbformat.reads(json.dumps(notebook | {"cells": cells}), as_version=4))
    executed.metadata.arithmetic = earlier["metadata"].get("arithmetic", "")
    return executed
