"""Whether the results are those of the commit, and if not, why: parameters, code, or another arithmetic."""

import json

from nbproof.notebook.files import root
from nbproof.pipeline.config import load, recorded
from nbproof.pipeline.dag import Stage
from nbproof.runner import determinism
from nbproof.workspace import git


def announce() -> None:
    """Say first where this machine's results may differ from the committed ones though nothing was changed."""
    if (here := determinism.machine()) != determinism.NAME:
        print(f"This machine computes as {here}, not as {determinism.NAME}: bytes of results may differ, numbers are "
              f"compared within {_bound()} (tolerance in project.yaml).", flush=True)


def compared(found: dict[str, Stage]) -> list[str]:
    """One sentence where all results are the committed ones; else how many are, and for each stage why they differ."""
    committed, now = (recorded(_text("dvc.lock", commit)) for commit in ("HEAD", ""))
    if not committed:
        return []
    short = {name: stage.short for name, stage in found.items()}
    outs = {name: _sums(now, name, "outs") for name in now}
    differ = {name: [path for path in paths if _sums(committed, name, "outs").get(path) != paths[path]]
              for name, paths in outs.items()}
    total, wrong = sum(map(len, outs.values())), sum(map(len, differ.values()))
    if not wrong:
        return [f"All {total} results are the committed ones, byte for byte."]
    lines = [f"{total - wrong} of {total} results are the committed ones, byte for byte."]
    made = {path for paths in outs.values() for path in paths}
    for name in filter(differ.get, now):
        lines.append(f"{short.get(name, name)} differs: {_why(committed, now, name, made)}.")
    return lines


def _why(committed: dict, now: dict, name: str, made: set[str]) -> str:
    """Why the results of the stage `name` differ from the commit; `made` are the paths that stages make."""
    if name not in committed:
        return "the commit has no such stage"
    before, after = _sums(committed, name, "deps"), _sums(now, name, "deps")
    changed = sorted(path for path in before | after if before.get(path) != after.get(path))
    read = [path for path in changed if path in made or any(each.startswith(f"{path}/") for each in made)]
    old, new = _parameters(committed, name), _parameters(now, name)
    values = sorted(key for key in old | new if old.get(key) != new.get(key))
    reasons = [f"parameters ({', '.join(values)})"] if values else []
    if code := [path for path in changed if path not in read]:
        reasons.append(f"code ({', '.join(code)})")
    if read:
        reasons.append(f"what it reads ({', '.join(read)})")
    return ", ".join(reasons) or _arithmetic(name)


def _arithmetic(name: str) -> str:
    """The reason that is left where code, parameters and inputs are the commit's, and how far the numbers are off."""
    short = name.rpartition("@")[2]
    report = root() / "reports" / f"{short}.ipynb"
    made = json.loads(report.read_text(encoding="utf-8"))["metadata"].get("arithmetic") if report.exists() else None
    if made in (None, "", determinism.NAME):
        return "it varies from run to run, or the commit was made with another arithmetic: nothing else differs"
    now, before = (_numbers(short, commit) for commit in ("", "HEAD"))
    outside = sorted(key for key in now if key in before and not load().tolerance.holds(now[key], before[key]))
    return f"another arithmetic ({made}); " + (f"outside {_bound()}: {', '.join(outside)}" if outside else
                                               f"all numbers are the committed ones within {_bound()}")


def _bound() -> str:
    bound = load().tolerance
    return " or ".join([f"{bound.absolute:g}", *([f"{bound.relative:.2%}"] if bound.relative else [])])


def _numbers(short: str, commit: str) -> dict[str, float]:
    content = json.loads(_text(f"metrics/{short}.json", commit) or "{}")
    return {key: value for key, value in content.items() if isinstance(value, int | float)}


def _text(path: str, commit: str = "") -> str:
    """A file of the project, or of `commit`; empty where it is not there, or git is not installed."""
    if commit:
        return (git.at(commit, path) or b"").decode()
    return (root() / path).read_text(encoding="utf-8") if (root() / path).exists() else ""


def _sums(lock: dict, name: str, kind: str) -> dict[str, str]:
    """The MD5 sums of a stage's `deps` or `outs` by their paths."""
    return {each["path"]: each.get("md5", "") for each in lock.get(name, {}).get(kind, [])}


def _parameters(lock: dict, name: str) -> dict:
    """The parameters that a lock records for a stage: dotted name and value."""
    flat, waiting = {}, list(lock.get(name, {}).get("params", {}).get("params.yaml", {}).items())
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{key}.{inner}", each) for inner, each in value.items()]
        else:
            flat[key] = value
    return flat
