"""The report of a pull request: what a branch did to the results, as Markdown that is safe to post on GitHub.

Built from the workspace, git and DVC alone.
"""

import json
from pathlib import Path

from nbproof.notebook import tracking
from nbproof.notebook.errors import Refused
from nbproof.notebook.files import root
from nbproof.report import revision, sections
from nbproof.report.facts import gather


def build(base: str | None = None, links: dict | None = None, tests: str | None = None, outcome: str = "") -> str:
    """The report on the project against the revision `base` (default: origin/main or main, where there is one).

    `links` maps notebooks to the https addresses of their pages; `tests` is a key of sections.TESTS; `outcome` is what
    the run printed. Refused where git has no such revision, or DVC is at work in the folder.
    """
    facts = gather(root(), revision.base_of(root(), base), outcome)
    return sections.fit([
        sections.headline(facts, tests),
        sections.stages(facts, links or {}),
        *sections.failures(facts, outcome),
        *sections.differences(facts),
        *sections.curves(facts),
        *sections.answers(facts),
        *sections.changed_outputs(facts),
        sections.reproduce(facts, tracking.address()),
    ])


def read_links(path: Path) -> dict:
    """The JSON object at `path`, notebook to address; Refused where it is not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused(f'{path} must hold an object such as {{"NAME": "https://..."}}, found {type(found).__name__}.')
    return found
