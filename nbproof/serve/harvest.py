"""Takes labelled inputs of the server's log into the data, after a person has looked through them."""

import json
import os
import shutil
import sys
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest, root, write_whole
from nbproof.pipeline import dag
from nbproof.serve import log_notebook

NOTEBOOK, PAGE, KEPT, FACTS = "notebooks/harvest.ipynb", "reports/harvest.html", "data/drawn", "reports/harvest.json"
VERSION = f"{KEPT}.json"


def harvest(yes: bool) -> int:
    """Execute notebooks/harvest.ipynb beside the project, ask, and make what it wrote the DVC output data/drawn."""
    log_notebook.check(NOTEBOOK)
    beside = root() / "scratch" / "harvest"
    shutil.rmtree(beside, ignore_errors=True)
    if failure := log_notebook.run(NOTEBOOK, PAGE, beside):
        print(f"harvest: {NOTEBOOK} failed at {failure}", file=sys.stderr)
        return 1
    facts = _facts(beside)
    print(f"harvest: {facts['new']:,} new, {facts['cases']:,} in all -> {PAGE}")
    if not facts["new"]:
        print(f"Nothing new: {KEPT} stays as it is.")
        return 0
    if not _approved(yes):
        return 1
    _keep(beside / KEPT, facts["cases"])
    print(f"{KEPT} is a new version: commit {KEPT}.dvc and {VERSION}, and send the data by nbproof push.")
    return 0


def _facts(beside: Path) -> dict[str, int]:
    """What the notebook wrote; UserError where that is not what the contract says."""
    try:
        facts = json.loads((beside / FACTS).read_text(encoding="utf-8"))
        if all(type(facts[key]) is int for key in ("cases", "new")) and (beside / KEPT).is_dir():
            return facts
    except (OSError, ValueError, KeyError, TypeError):
        pass  # refused below, as every other content
    raise UserError(f'{NOTEBOOK} must write {KEPT} and {FACTS} with {{"cases": number, "new": number}}, and did not.')


def _approved(yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError(f"Nothing was changed: look through {PAGE}; {KEPT} is written after a yes on a terminal, or with "
                      "--yes.")
    return input(f"Take them into {KEPT}? Look through {PAGE} first. [y/N] ").strip().lower() in ("y", "yes")


def _keep(made: Path, cases: int) -> None:
    """Put the folder `made` in the place of the old one, and let DVC keep it; the old version stays in DVC's cache."""
    place, version = root() / KEPT, root() / VERSION
    old, before = place.with_name(f".{place.name}.{os.getpid()}"), version.read_bytes() if version.exists() else None
    with dag.opened(root()) as repo:
        repo.scm_context.quiet = True  # DVC's advice on git; ours follows
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            place.rename(old)
        try:
            made.rename(place)
            write_whole(version, json.dumps({"cases": cases, "digest": digest(place)}, indent=2) + "\n")
            repo.add([str(place)])
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            if old.exists():
                old.rename(place)
            if before is None:
                version.unlink(missing_ok=True)
            else:
                write_whole(version, before)
            raise
    shutil.rmtree(old, ignore_errors=True)
