"""The report of a pull request: what a branch did to the results, as Markdown that is safe to post on GitHub.

Built from the workspace, git and DVC alone. No stage depends on this folder, so editing it trains nothing again.
"""

import json
import os
from pathlib import Path

from pipeline import ROOT, Refused
from pipeline.report import revision, sections
from pipeline.report.facts import gather
from pipeline.report.fit import fit


def build(root: Path = ROOT, base: str | None = None, links: dict | None = None, tests: str | None = None, outcome: str = "") -> str:
    """The report on the workspace at `root` against the revision `base` (default: origin/main or main, where there is one).

    `links` maps notebooks to the https addresses of their pages; `tests` is a key of sections.TESTS; `outcome` is what the run printed.
    """
    facts = gather(root, revision.base_of(root, base))
    return fit([
        sections.headline(facts, tests),
        sections.notebooks(facts, links or {}),
        *sections.failures(facts, outcome),
        *sections.differences(facts),
        *sections.learning(facts),
        *sections.output_changes(facts),
        sections.reproduce(facts, os.environ.get("MLFLOW_TRACKING_URI")),
    ])


def read_links(path: Path) -> dict:
    """The JSON object at `path`, notebook to address; Refused where it is not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused(f'{path} must hold an object such as {{"cnn": "https://..."}}, found {type(found).__name__}.')
    return found
