"""Merges dvc.lock stage by stage: git's driver for it, and for the metrics that a stage writes.

A stage that both sides changed loses its entry, so that the next run takes its results from DVC's
run-cache or runs it. Its metrics are then written again, whichever side's they are until then.
"""

import sys
from pathlib import Path

from dvc.utils.serialize import dump_yaml
from ruamel.yaml.error import YAMLError

from nbproof.notebook.files import from_yaml


def merge(base: Path, ours: Path, theirs: Path) -> int:
    """Merge the files of two sides into `ours`; return 1, a conflict, where one is no YAML."""
    try:
        old, own, other = (from_yaml(path.read_text(encoding="utf-8")) or {}
                           for path in (base, ours, theirs))
    except (YAMLError, UnicodeDecodeError):
        return 1
    if all(isinstance(lock, dict) and "stages" in lock for lock in (own, other)):
        stages = merged(old.get("stages", {}), own["stages"], other["stages"])
        dump_yaml(str(ours), own | {"stages": stages})
    return 0  # of a file of metrics, ours stays: its stage ran on both sides, and runs again


def merged(old: dict, own: dict, other: dict) -> dict:
    """Return the stages of dvc.lock that one side alone changed, and those that none did."""
    stages = {}
    for name in dict.fromkeys([*own, *other]):
        before, ours, theirs = (side.get(name) for side in (old, own, other))
        if ours == theirs or theirs == before:
            stages[name] = ours
        elif ours == before:
            stages[name] = theirs
    return {name: entry for name, entry in stages.items() if entry}


if __name__ == "__main__":
    sys.exit(merge(*map(Path, sys.argv[1:4])))
