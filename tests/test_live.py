"""What a person sees at a terminal: a table while a run works, the results at its end, help for what is mistyped."""

import os
import re
import select
import socket
import subprocess
import sys

import pytest
from projects import cells, command, nbproof
from typer.testing import CliRunner

from nbproof import cli

pty = pytest.importorskip("pty", reason="a terminal of its own needs a POSIX system")


def at_a_terminal(folder, *words: str, **environment: str) -> str:
    """What `nbproof WORDS` writes to a terminal of 100 columns, until it ends."""
    ours, theirs = pty.openpty()
    variables = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"} | environment
    process = subprocess.Popen([sys.executable, "-m", "nbproof", *words], cwd=folder, env=variables,
                               stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                said += os.read(ours, 65536)
            except OSError:  # Linux's way to say that the other side is closed
                break
    process.wait()
    os.close(ours)
    return said.decode()


FOLLOWS = """\
from nbproof.notebook import progress, write
with progress.follow(steps=2, unit='round') as follower:
    follower.step({'error': 0.25})
    follower.step({'error': 0.125})
_ = write('models/x.txt', f'result {n}')"""


def test_a_table_lives_on_a_terminal_and_lines_elsewhere(single):
    cells(single, FOLLOWS, "pass")
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", at_a_terminal(single, "run"))
    rows = [line.split() for line in said.splitlines()]
    assert ["stage", "cell", "step", "error", "elapsed", "left"] in rows
    assert ["x", "waits"] in rows or any(row[:2] == ["x", "runs"] for row in rows)
    last = [row for row in rows if row[:2] == ["x", "done"]][-1]
    assert last[2:9] == ["4", "of", "4", "round", "2", "of", "2"] and last[9] == "0.125", last
    assert "1 of 1 stages" in said and "The result: reports/index.html" in said and "\x1e" not in said
    plain = nbproof(single, "run", "--force").stdout
    assert "x: round 2/2  error 0.125" in plain and "\x1e" not in plain and "\x1b" not in plain


def test_a_dumb_terminal_gets_lines(single):
    said = at_a_terminal(single, "run", TERM="dumb")
    assert "x: every cell ran" in said and "\x1b[?25l" not in said  # no cursor is hidden


def test_a_notebook_that_is_mistyped(single):
    path = single / "dvc.yaml"
    path.write_text(path.read_text().replace('${key}.ipynb"]', '${key}y.ipynb"]', 1))
    said = nbproof(single, "run").stdout
    assert "notebooks/xy.ipynb is not there" in said and said.endswith("Did you mean x.ipynb?\n")


@pytest.mark.parametrize("words", [("lab", "--no-browser"), ("ui",)])
def test_a_port_in_use(single, words):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = nbproof(single, *words, PORT=str(port))
    said = f"Port {port} cannot be taken (in use by another program): name another one, such as PORT=8899.\n"
    assert done.returncode == 2 and done.stdout == said


def test_debug_shows_where_a_sentence_comes_from(tmp_path):
    plain, whole = (command(tmp_path, sys.executable, "-m", "nbproof", *words, "run") for words in ([], ["--debug"]))
    assert plain.stdout.count("\n") == 1 and plain.stdout in whole.stdout and "Traceback" in whole.stdout


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


@pytest.mark.parametrize("words, variable", [
    (["model"], "NAME"), (["sweep"], "MODEL"), (["predict"], "INPUT"), (["try"], "MODEL"), (["new"], "DIR")])
def test_what_is_missing_has_the_name_that_make_gives_it(words, variable):
    done = CliRunner().invoke(cli.app, words, env={variable: ""})
    assert done.exit_code == 2 and f"Missing argument '{variable}'" in done.output, done.output
