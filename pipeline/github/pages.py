"""The rendered notebooks as artifacts, each a file of its own that opens in the browser.

`actions/upload-artifact` takes one file a step, and models come and go: .github/actions/pages has a fixed number of slots, folders
scratch/pages/NN, of which each holds one page or none.
"""

import json
import re
import shutil
from pathlib import Path

from pipeline import ROOT
from pipeline.github import lock, step

SLOTS = 20
NAME = re.compile(r"[a-z][a-z0-9_]*")
ADDRESS = re.compile(r"https://[A-Za-z0-9.:-]+/[A-Za-z0-9._/-]+/actions/runs/[0-9]+/artifacts/[0-9]+")


def lay_out(base: str, root: Path = ROOT) -> list[str]:
    """Copy each page into a slot, those that differ from the base first; the names of those that found no slot.

    An artifact is named after its file, and a name can be used once in a run: the file's name holds the run's id and attempt.
    """
    recorded = {path: out.md5 for path, out in lock.at(base, root).items()} if base else {}
    now = {path: out.md5 for path, out in lock.here(root).items()}

    def unchanged(page: Path) -> bool:
        path = f"reports/{page.name}"
        return path in now and recorded.get(path) == now[path]

    found = sorted((page for page in (root / "reports").glob("*.html") if NAME.fullmatch(page.stem)), key=lambda page: (unchanged(page), page.stem))
    run, attempt = step.run_id()
    folder = step.fresh("pages")
    for slot, page in enumerate(found[:SLOTS], 1):
        (folder / f"{slot:02}").mkdir()
        shutil.copyfile(page, folder / f"{slot:02}" / f"{page.stem}-{run}-{attempt}.html")
    return [page.stem for page in found[SLOTS:]]


def links(steps: str) -> dict[str, str]:
    """The address of each notebook's page, from the slots' steps: the JSON of the workflow's `steps` context."""
    found = {}
    for slot in range(1, SLOTS + 1):
        address = json.loads(steps or "{}").get(f"page{slot:02}", {}).get("outputs", {}).get("artifact-url", "")
        for page in (step.SCRATCH / "pages" / f"{slot:02}").glob("*.html"):
            if ADDRESS.fullmatch(address):
                found[page.stem.rsplit("-", 2)[0]] = address
    return found
