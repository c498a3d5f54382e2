"""What a review knows of both sides: where it is from, and what is no change of the branch."""

import os
import re

import pytest

from nbproof.notebook.errors import UserError
from nbproof.review import base
from nbproof.review.collect import collect

from .tiny import rows


def test_outputs_with_carriage_returns_are_the_base_s(tiny):
    """csv.writer ends lines with CRLF, and git may keep them as LF."""
    tiny.write(".gitattributes", "*.csv text eol=crlf\n")
    content = "actual,predicted\r\n1,1\r\n2,1\r\n"
    tiny.run()
    tiny.write("models/oak.csv", content)
    tiny.write("metrics/answers.csv", content)
    tiny.record()
    tiny.commit()
    oak = next(result for result in collect("main").results if result.name == "oak")
    assert oak.answers == ((("1", "1"), ("2", "1")),) * 2
    assert not oak.is_unseen
    assert base.here("models/oak.csv") == content


def test_an_old_failure_is_not_told_as_a_new_one(tiny):
    tiny.fail({"cell": 4, "error": "AssertionError", "reason": "too low"}, [])
    assert "**failed at cell 4**" in rows(tiny.comment(), "oak")[0]
    copy = (tiny.root / "reports/oak.ipynb").stat()
    tiny.write("notebooks/oak.ipynb", "corrected")
    os.utime(tiny.root / "notebooks/oak.ipynb", ns=(copy.st_mtime_ns + 1,) * 2)
    comment = tiny.comment()
    assert rows(comment, "oak")[0] == "| `oak` | not run | 0.9900 | – |  |  |"
    assert "too low" not in comment
    for content in ("", "[]", '{"cells": 1}'):
        tiny.write("reports/oak.ipynb", content)
        assert "Not run: `compare`, `oak`." in tiny.comment()


def test_base_outputs_that_cannot_be_had(tiny):
    tiny.begin().said["oak"] = "Something else."
    tiny.run("oak")
    words = "The base's outputs of `oak` are not in DVC's cache here, so they are not compared"
    assert words not in tiny.comment()
    entry = tiny.git("show", "main:dvc.lock").split("reports/oak.ipynb")[1]
    old = re.search(r"md5: (\w{32})", entry)[1]
    cached = tiny.root / ".dvc/cache/files/md5" / old[:2] / old[2:]
    cached.unlink()
    assert words in tiny.comment()


def test_metrics_that_cannot_be_read_are_no_removed_model(tiny):
    tiny.begin().write("metrics/elm.json", "broken")
    tiny.write("notebooks/elm.ipynb", "other")
    tiny.record("elm")
    assert "**`elm` is not comparable**: 0.9200 → no number, " in tiny.comment().splitlines()[0]


def test_without_git_one_sentence_says_so(tmp_path, inside):
    (tmp_path / "project.yaml").write_text("name: tiny\n")
    inside(tmp_path)
    with pytest.raises(UserError, match="in no git repository: git init makes one"):
        collect()


def test_where_the_branch_left(tiny):
    tiny.begin()
    left = tiny.git("rev-parse", "HEAD")
    tiny.git("checkout", "-q", "main")
    tiny.models["oak"]["rate"] = 0.7
    tiny.run("oak")
    moved = tiny.commit()
    tiny.git("checkout", "-q", "topic")
    assert base.base_of(moved) == base.base_of(None) == left
    assert base.base_of("") == "" and base.commit("0" * 40) == ""
    for revision in ("nowhere", "--output=x"):
        with pytest.raises(UserError, match=f"no commit {revision!r} to compare with"):
            base.base_of(revision)
