"""Trains everything again from nothing, and says whether the numbers moved."""

import json
import subprocess
from pathlib import Path

from pipeline import ROOT, Refused
from pipeline.github import lock, step


def numbers(text: str) -> dict[str, float]:
    """The numbers of one metrics file, by name."""
    return {key: value for key, value in json.loads(text).items() if type(value) in (int, float)}


def committed(root: Path = ROOT) -> dict[str, dict[str, float]]:
    """The metrics of the commit that is checked out, by file."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout

    listed = git("ls-tree", "--name-only", "HEAD", "metrics/").split()
    return {path: numbers(git("show", f"HEAD:{path}")) for path in listed if path.endswith(".json")}


def compare(tolerance: float, root: Path = ROOT) -> tuple[str, list[str]]:
    """A table of the numbers that moved at all, and the names of those that moved by more than `tolerance`."""
    before = committed(root)
    now = {f"metrics/{path.name}": numbers(path.read_text(encoding="utf-8")) for path in sorted((root / "metrics").glob("*.json"))}
    rows, moved = [], []
    for path in sorted(before.keys() | now.keys()):
        for name in dict.fromkeys([*before.get(path, {}), *now.get(path, {})]):
            old, new = before.get(path, {}).get(name), now.get(path, {}).get(name)
            if old == new:
                continue
            rows.append(f"| `{path}` | {name} | {old if old is not None else '–'} | {new if new is not None else '–'} |")
            if old is None or new is None or abs(new - old) > tolerance:
                moved.append(f"{path} {name}")
    same = lock.at("HEAD", root) == lock.here(root)
    if not rows:
        rest = ", and every output, byte for byte" if same else "; some outputs have other bytes"
        return f"Trained again from nothing: every number is as committed{rest}.\n", moved
    table = "\n".join(["| file | number | committed | now |", "|---|---|---:|---:|", *rows])
    verdict = f"{len(moved)} by more than {tolerance}" if moved else f"none by more than {tolerance}"
    return f"Trained again from nothing: {len(rows)} numbers moved, {verdict}.\n\n{table}\n", moved


def report(tolerance: float, root: Path = ROOT) -> int:
    """Put the comparison into the job summary; 1 where a number moved by more than `tolerance`, so that the run fails and GitHub tells."""
    if not tolerance >= 0:
        raise Refused(f"The tolerance must be a number of at least 0, found {tolerance}.")
    text, moved = compare(tolerance, root)
    step.summarise(text)
    print(text)
    return 1 if moved else 0
