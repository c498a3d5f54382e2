"""Two branches that each changed a model: their dvc.lock and metrics merge without a conflict."""

import json
from pathlib import Path

import pytest
from projects import command, commit, edit_params, said, stages_run

from nbproof.workspace import merge
from nbproof.workspace.git import ATTRIBUTES


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    done = command(folder, "git", *who, *words)
    assert done.returncode == 0, done.stdout


def train(folder: Path, model: str, value: int) -> bytes:
    """Train `model` with another number and commit it; return its metrics."""
    edit_params(folder, lambda content: content["models"][model].update(step=value))
    said(folder, "run", "--no-register")
    commit(folder)
    return (folder / f"metrics/{model}.json").read_bytes()


def test_two_branches_merge_and_one_run_has_the_results_of_both(finished):
    params = finished / "params.yaml"  # git merges lines that are not neighbours
    params.write_text(params.read_text().replace("  far:", "  # the other one\n  far:"))
    (finished / ".gitattributes").write_text("".join(f"{line}\n" for line in ATTRIBUTES))
    commit(finished)
    said(finished, "git")
    git(finished, "checkout", "-qb", "other")
    near = train(finished, "near", 3)
    git(finished, "checkout", "-q", "-")
    far = train(finished, "far", 5)
    git(finished, "merge", "-q", "--no-edit", "other")
    lock = (finished / "dvc.lock").read_text()
    assert "train@near" in lock and "train@far" in lock and "  compare:" not in lock
    output = said(finished, "run", "--no-register")
    assert stages_run(output) == {"compare"}
    assert "near: its results come from DVC's run-cache" in output
    models = [(finished / f"metrics/{name}.json").read_bytes() for name in ("near", "far")]
    assert models == [near, far]
    errors = {name: json.loads(text)["error"] for name, text in zip(("near", "far"), models)}
    champion = json.loads((finished / "metrics/compare.json").read_text())["champion"]
    assert errors[champion] == min(errors.values())
    assert "byte for byte" in said(finished, "run", "--force", "--no-register")


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
