"""What a run shows: a live table on a terminal, plain lines in a log or a pipe."""

import io

from rich.console import Console

from nbproof.pipeline import console
from nbproof.pipeline.dag import Stage

FOUND = {f"train@{name}": Stage(f"train@{name}", name, None, (), (), (), frozenset())
         for name in ("a", "b[1]", "c")}
STEP = {"step": 2, "steps": 4, "unit": "round", "metrics": {"error": 0.125}, "seconds": 1.0}


def shown(monkeypatch, **terminal) -> list[list[str]]:
    """The words of the last lines that a run of two stages leaves on the screen."""
    output = io.StringIO()
    monkeypatch.setattr(console, "Console", lambda: Console(file=output, width=100, **terminal))
    with console.Screen(FOUND, {"train@a", "train@b[1]"}) as screen:
        screen.note("train@a", state="runs")
        screen.note("train@a", cell=3, cells=4)
        screen.note("train@a", **STEP)
        screen.note("train@a", **STEP | {"metrics": {"loss": 7.0}})
        screen.line("a: [warning] 1 \\[x]")
        screen.note("train@a", state="done")
        screen.note("train@b[1]", state="failed")
    return [line.split() for line in output.getvalue().splitlines()[-3:]]


def test_a_table_on_a_terminal(small, monkeypatch):
    (small / "metrics" / "a.json").write_text('{"error": 0.75}')  # not the last step's 0.125
    lines = shown(monkeypatch, force_terminal=True, no_color=True)
    row = next(line for line in lines if "done" in line)
    assert row[0].endswith("a") and ":" in row[12]  # the time so far
    assert " ".join(row[1:12]) == "done cell 3 of 4 round 2 of 4 error 0.7500"
    assert any(line[:2] == ["b[1]", "failed"] for line in lines)
    assert not any("c" in line for line in lines)


def test_plain_lines_elsewhere(small, monkeypatch, capsys):
    for terminal in ({}, {"force_terminal": True, "_environ": {"TERM": "dumb"}}):
        assert shown(monkeypatch, **terminal) == []
        assert capsys.readouterr().out.splitlines() == [
            "a: starts", "a: round 2/4  error 0.125  1.0 s", "a: round 2/4  loss 7  1.0 s",
            "a: [warning] 1 \\[x]"]
