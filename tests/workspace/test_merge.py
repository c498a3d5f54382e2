"""Two branches that each changed a model: their dvc.lock and metrics merge without a conflict."""

import json
import subprocess
from pathlib import Path

import pytest
from projects import commit, edit_params, nbproof, stages_run

from nbproof.workspace import merge
from nbproof.workspace.git import ATTRIBUTES

PARAMS = """\
data:
  sizes: [5, 3]
  label: null
split: {seed: 1}
models:
  near:
    step: 2
    rounds: 3
  far:
    rounds: 2
    step: 4
"""


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def change(folder: Path, model: str, value: int) -> str:
    """Train `model` with another number; what the run prints, which is committed."""
    edit_params(folder, lambda content: content["models"][model].update(step=value))
    done = nbproof(folder, "run", "--no-register")
    assert done.returncode == 0, done.stdout
    commit(folder)
    return done.stdout


def test_two_branches_merge_and_one_run_has_the_results_of_both(finished):
    (finished / "params.yaml").write_text(PARAMS)
    (finished / ".gitattributes").write_text("".join(f"{line}\n" for line in ATTRIBUTES))
    commit(finished)
    assert nbproof(finished, "git").returncode == 0
    git(finished, "checkout", "-qb", "other")
    change(finished, "near", 3)
    near = (finished / "metrics/near.json").read_bytes()
    git(finished, "checkout", "-q", "-")
    change(finished, "far", 5)
    far = (finished / "metrics/far.json").read_bytes()
    git(finished, "merge", "-q", "--no-edit", "other")
    lock = (finished / "dvc.lock").read_text()
    assert "train@near" in lock and "train@far" in lock and "  compare:" not in lock
    done = nbproof(finished, "run", "--no-register")
    assert done.returncode == 0 and stages_run(done.stdout) == {"compare"}, done.stdout
    assert "near: its results come from DVC's run-cache" in done.stdout
    models = [(finished / f"metrics/{name}.json").read_bytes() for name in ("near", "far")]
    assert models == [near, far]
    champion = json.loads((finished / "metrics/compare.json").read_text())["champion"]
    assert champion == min(("far", "near"), key=lambda name: json.loads(
        (finished / f"metrics/{name}.json").read_text())["error"])
    assert "byte for byte" in nbproof(finished, "run", "--force", "--no-register").stdout


@pytest.mark.parametrize("old, own, other, wanted", [
    (1, 1, 2, 2), (1, 2, 1, 2), (1, 2, 2, 2), (1, 2, 3, None), (None, 1, None, 1),
    (None, None, 1, 1), (1, None, 1, None), (1, 1, None, None), (1, None, 2, None),
    (None, 1, 2, None)])
def test_a_stage_that_one_side_changed_is_that_sides(old, own, other, wanted):
    sides = ({} if side is None else {"a": {"cmd": side}} for side in (old, own, other))
    assert merge.merged(*sides) == ({} if wanted is None else {"a": {"cmd": wanted}})


def test_what_is_no_yaml_stays_a_conflict(tmp_path):
    for name, text in {"base": "", "ours": "stages: {}\n", "theirs": "<<<<<<< a\nb: [\n"}.items():
        (tmp_path / name).write_text(text)
    assert merge.merge(tmp_path / "base", tmp_path / "ours", tmp_path / "theirs") == 1
    assert (tmp_path / "ours").read_text() == "stages: {}\n"
