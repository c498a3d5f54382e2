"""Where a notebook reads and writes, and files that are whole or not there."""

import os
from pathlib import Path

import pytest

from nbproof.notebook import files


def test_an_exploration_writes_to_scratch_and_a_stage_to_its_place(project, inside, monkeypatch):
    (project / "notebooks").mkdir()
    inside(project / "notebooks")
    monkeypatch.delenv("NBPROOF_OUTPUT")
    assert files.root() == project
    assert files.write("metrics/x.json", "{}") == project / "scratch" / "metrics" / "x.json"
    monkeypatch.setenv("NBPROOF_OUTPUT", str(project))
    assert files.write("metrics/x.json", b"{}").read_bytes() == b"{}"
    (project / "data" / "table").mkdir(parents=True)
    (project / "data" / "table" / "old").touch()
    assert list(files.output_folder("data/table").iterdir()) == []
    assert files.source("data/table") == project / "data" / "table"
    with pytest.raises(FileNotFoundError, match="^data/y is not there yet: nbproof run"):
        files.source("data/y")


def test_a_write_that_fails_leaves_the_old_file(project, monkeypatch):
    path = files.write_whole(project / "x.txt", "old")

    def full(*_):
        raise OSError("no room")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no room"):
        files.write_whole(path, "new")
    assert path.read_text() == "old" and not list(project.glob(".x*"))


def test_a_digest_is_of_names_and_bytes(tmp_path):
    def made(name: str, **contents: str) -> str:
        for inside, text in contents.items():
            path = tmp_path / name / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return files.digest(Path(tmp_path, name))

    assert made("a", x="1", y="2") == made("b", y="2", x="1")
    assert made("c", x="12") != made("d", x="1") != made("e", z="1")
    assert files.digest(tmp_path / "a" / "x") == files.digest(tmp_path / "d" / "x")
