"""Whether the results are those of the commit, byte for byte, and if not, why."""

import json
from collections.abc import Iterable

from nbproof.notebook import tracking
from nbproof.notebook.files import root
from nbproof.pipeline.config import load, recorded
from nbproof.pipeline.dag import Stage
from nbproof.runner import determinism


def announce() -> None:
    """Print first where this processor may give other bytes than the committed results have."""
    if (here := determinism.machine()) != determinism.NAME:
        print(f"This machine rounds like {here}, not like {determinism.NAME}: results may have "
              f"other bytes; numbers are compared within {load().tolerance} (project.yaml: "
              "tolerance).", flush=True)


def compared(stages: dict[str, Stage]) -> list[str]:
    """Return how many results are the committed ones, and a sentence on each stage that made others
    from the same inputs."""
    lock, committed = root() / "dvc.lock", tracking.git("show", "HEAD:./dvc.lock")
    if not committed or not lock.exists():
        return []
    here = lock.read_text(encoding="utf-8")
    if committed == here:  # the usual case, without reading YAML for a tenth of a second
        total = sum(len(stage.outputs) for stage in stages.values())
        return [f"All {total} results are the committed ones, byte for byte."] if total else []
    old, new = recorded(committed), recorded(here)
    # Results of changed inputs, such as other data, are expected to differ: no news.
    repeated = [name for name in stages
                if name in old and name in new and _inputs(old[name]) == _inputs(new[name])]
    before, after = (_md5s(side[name] for name in repeated) for side in (old, new))
    same = len(before.items() & after.items())
    lines = [f"{same} of {len(after)} results of unchanged inputs are the committed ones, byte for "
             "byte."] if after else []
    return lines + [
        f"{stages[name].short} has other bytes from the same inputs: "
        f"{_other_bytes(stages[name].short)}." for name in repeated if old[name] != new[name]]


def _inputs(record: dict) -> dict:
    """Return a stage's record in dvc.lock without its results."""
    return {key: value for key, value in record.items() if key != "outs"}


def _other_bytes(short: str) -> str:
    """Return why bytes differ where nothing else does, and how far the numbers are apart."""
    if (machine := determinism.machine()) == determinism.NAME:
        return ("they vary from run to run, or the commit was made on a machine that computes "
                "otherwise")
    far = f"outside {load().tolerance}: {', '.join(outside(short))}"
    if not outside(short):
        far = f"all numbers are the committed ones within {load().tolerance}"
    return f"this machine rounds differently ({machine}); {far}"


def outside(short: str) -> list[str]:
    """Return the metrics of a stage that are not the committed ones within the tolerance."""
    tolerance, now = load().tolerance, load().metrics(short)
    committed = json.loads(tracking.git("show", f"HEAD:./metrics/{short}.json") or "{}")
    kinds = {key: {type(now.get(key)), type(committed.get(key))} for key in committed | now}
    return [key for key in kinds if kinds[key] & {int, float}  # no text
            and not (kinds[key] <= {int, float} and tolerance.holds(now[key], committed[key]))]


def _md5s(records: Iterable[dict]) -> dict[str, str]:
    """Return the MD5 sums of the results of stages by their paths."""
    return {out["path"]: out.get("md5", "") for record in records for out in record.get("outs", [])}
