"""The report of a pull request: what a branch did to the results, as Markdown that is safe to post on GitHub.

Built from the workspace, git and DVC alone.
"""

from nbproof.notebook import tracking
from nbproof.notebook.files import root
from nbproof.review import base as sides, changes, sections
from nbproof.review.facts import gather


def build(base: str | None = None, links: dict | None = None, outcome: str = "", run: str = "",
          final: bool = False) -> str:
    """The report on the project against the revision `base` (None: origin/main or main; empty: there is no base).

    `links` maps notebooks to the https addresses of their pages, `changes` to that of the page before and after, which
    is written, too (reports/changes.html); `outcome` is what the run printed; `run` is the id of
    the workflow's run, `final` whether it is main's. UserError where git has no such revision, or DVC is at work here.
    """
    facts = gather(root(), sides.base_of(root(), base), outcome)
    changes.write(facts)
    return sections.fit([
        sections.headline(facts, final),
        *sections.side_by_side(facts, links or {}),
        sections.stages(facts, links or {}),
        *sections.failures(facts, outcome),
        *sections.differences(facts),
        *sections.curves(facts),
        *sections.answers(facts),
        *sections.changed_outputs(facts),
        *sections.elsewhere(facts),
        sections.reproduce(facts, tracking.address(), run),
    ])


def write_changes(base: str) -> bool:
    """Write the page before and after alone, against the commit `base`; whether there is one. UserError as `build`."""
    return changes.write(gather(root(), base))
