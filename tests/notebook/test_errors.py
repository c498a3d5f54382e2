"""Messages name commands that the person who reads them can type."""

import sys

import pytest

from nbproof.notebook import errors


@pytest.mark.parametrize("text, shown", [
    ("nbproof run makes it, nbproof verify --fix mends.",
     "make run makes it, BIN/nbproof verify --fix mends."),
    ("call nbproof promote MODEL", "call BIN/nbproof promote MODEL"),
    ("nbproof model x", "BIN/nbproof model x"), ("nbproof's run", "nbproof's run")])
def test_commands_as_they_can_be_typed(text, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Makefile").write_text("run: ; x\nverify: ; x\npromote: ; x\n")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert errors.typed(text) == shown.replace("BIN", "env/bin")
    (tmp_path / "nbproof").touch(0o755)
    assert errors.typed(text) == text, "it is on the PATH"
