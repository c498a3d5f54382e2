"""Whether the results are those of the commit, byte for byte, and if not, why."""

import json
from collections.abc import Iterable

from dvc.utils.flatten import flatten

from nbproof.notebook import tracking
from nbproof.notebook.files import root
from nbproof.pipeline.config import load, recorded
from nbproof.pipeline.dag import Stage
from nbproof.runner import determinism


def announce() -> None:
    """Print first where this processor may give other bytes than the committed results have."""
    if (here := determinism.machine()) != determinism.NAME:
        print(f"This machine computes as {here}, not as {determinism.NAME}: bytes of results may "
              f"differ; numbers are compared within {load().tolerance} (project.yaml: tolerance).",
              flush=True)


def compared(found: dict[str, Stage]) -> list[str]:
    """Return one sentence where all results are the committed ones; else how many are, and why."""
    lock, committed = root() / "dvc.lock", tracking.git("show", "HEAD:./dvc.lock")
    if not committed or not lock.exists():
        return []
    here = lock.read_text(encoding="utf-8")
    if committed == here:  # the usual case, without reading YAML for a tenth of a second
        total = sum(len(stage.outputs) for stage in found.values())
        return [f"All {total} results are the committed ones, byte for byte."]
    old, new = recorded(committed), recorded(here)
    before, after = _md5s(old.values(), "outs"), _md5s(new.values(), "outs")
    lines = [f"{len(before.items() & after.items())} of {len(after)} results are the committed "
             "ones, byte for byte."]
    for name, stage in found.items():
        if any(before.get(path) != after.get(path) for path in stage.outputs):
            reason = _changes(old.get(name), new[name], set(after)) or _other_bytes(stage.short)
            lines.append(f"{stage.short} differs: {reason}.")
    return lines


def _changes(old: dict | None, new: dict, outputs: set[str]) -> str:
    """Return what a stage's two records in dvc.lock say of why its results differ, if anything."""
    if not old:
        return "the commit has no such stage"
    before, after = _md5s([old], "deps"), _md5s([new], "deps")
    changed = {path for path, _ in before.items() ^ after.items()}
    read = {path for path in changed if any(f"{out}/".startswith(f"{path}/") for out in outputs)}
    was, now = (flatten(entry.get("params", {}).get("params.yaml", {})) for entry in (old, new))
    values = {key for key in was | now if was.get(key) != now.get(key)}
    reasons = {"parameters": values, "code": changed - read, "what it reads": read}
    return ", ".join(f"{reason} ({', '.join(sorted(names))})"
                     for reason, names in reasons.items() if names)


def _other_bytes(short: str) -> str:
    """Return why bytes differ where nothing else does, and how far the numbers are apart."""
    if (machine := determinism.machine()) == determinism.NAME:
        return ("it varies from run to run, or the commit was made on a machine that computes "
                "otherwise: nothing else differs")
    tolerance, now = load().tolerance, load().metrics(short)
    committed = json.loads(tracking.git("show", f"HEAD:./metrics/{short}.json") or "{}")
    outside = [key for key, value in now.items()
               if {type(value), type(committed.get(key))} <= {int, float}
               and not tolerance.holds(value, committed[key])]
    far = (f"outside {tolerance}: {', '.join(outside)}" if outside else
           f"all numbers are the committed ones within {tolerance}")
    return f"it was made on a machine that computes otherwise ({machine}); {far}"


def _md5s(entries: Iterable[dict], kind: str) -> dict[str, str]:
    """Return the MD5 sums of the `deps` or `outs` of stages by their paths."""
    return {record["path"]: record.get("md5", "")
            for entry in entries for record in entry.get(kind, [])}
