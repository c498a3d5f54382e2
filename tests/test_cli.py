"""The command itself: tracebacks where they are asked for, completion, help."""

import re

import pytest
from projects import command, nbproof
from typer.testing import CliRunner

from nbproof import cli


def test_debug_shows_where_a_sentence_comes_from(tmp_path):
    plain, whole = nbproof(tmp_path, "run").stdout, nbproof(tmp_path, "--debug", "run").stdout
    assert plain.count("\n") == 1 and plain in whole and "Traceback" in whole


@pytest.mark.parametrize("shell, words", [
    ("bash", {"COMP_WORDS": "nbproof pre", "COMP_CWORD": "1"}),
    ("zsh", {"_TYPER_COMPLETE_ARGS": "nbproof pre"}),
    ("fish", {"_TYPER_COMPLETE_ARGS": "nbproof pre", "_TYPER_COMPLETE_FISH_ACTION": "get-args"})])
def test_completion_is_there(tmp_path, shell, words):
    done = command(tmp_path, "nbproof", _NBPROOF_COMPLETE=f"complete_{shell}", **words)
    assert "predict" in done.stdout and "promote" not in done.stdout, done.stdout


def test_help_lists_what_a_person_calls_and_no_more():
    listed = re.findall(r"(?m)^│ (\w+) ", CliRunner().invoke(cli.app, ["--help"]).output)
    assert {"run", "lab", "serve"} <= {*listed} and not {"stage", "github"} & {*listed}
