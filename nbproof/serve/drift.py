"""Runs the notebook that watches the server's log: a page for people, an exit code for whoever is to be woken."""

import json
import sys

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.serve import log_notebook

NOTEBOOK, VERDICT, PAGE, ALARM = "notebooks/drift.ipynb", "reports/drift.json", "reports/drift.html", 3


def drift() -> int:
    """Execute notebooks/drift.ipynb on the log; 0 without an alarm, 3 with one, 1 where a cell failed."""
    log_notebook.check(NOTEBOOK)
    verdict = root() / VERDICT
    verdict.unlink(missing_ok=True)
    if failure := log_notebook.run(NOTEBOOK, PAGE, root()):
        print(f"drift: {NOTEBOOK} failed at {failure}", file=sys.stderr)
        return 1
    alarms = _alarms(verdict)
    said = f"alarm: {'; '.join(alarms)}" if alarms else "no alarm"
    print(f"drift: {said} -> {PAGE}")
    return ALARM if alarms else 0


def _alarms(verdict) -> list[str]:
    """What the notebook wrote; UserError where that is not what the contract says."""
    try:
        alarms = json.loads(verdict.read_text(encoding="utf-8"))["alarms"]
        if isinstance(alarms, list) and all(isinstance(each, str) for each in alarms):
            return alarms
    except (OSError, ValueError, KeyError, TypeError):
        pass  # refused below, as every other content
    raise UserError(f'{NOTEBOOK} must write {VERDICT} with {{"alarms": [text, ...]}}, and did not.')
