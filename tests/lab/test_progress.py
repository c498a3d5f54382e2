"""What is seen of some work while it runs, and where."""

import json
import subprocess
import sys

import pytest

from nbproof.notebook import progress
from nbproof.notebook.errors import require

ROW = {"train_loss": 0.5, "validation_loss": 0.4, "accuracy": 0.9}
CHARTS = {"loss": ["train_loss", "validation_loss"], "accuracy": ["accuracy"]}


class Display:
    """Stands for the display that a notebook would show."""

    def __init__(self, shown):
        self.contents = [shown["text/html"]]

    def update(self, shown, raw):
        self.contents.append(shown.get("text/html"))


@pytest.fixture
def notebook(monkeypatch):
    """A notebook that somebody looks at; its displays."""
    import IPython

    shown = []
    shell = type("Shell", (), {"kernel": object()})()
    monkeypatch.delenv("NBPROOF_EVENTS", raising=False)
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.setattr(progress, "EVERY", 0)
    monkeypatch.setattr(
        IPython.display, "display", lambda content, raw, display_id: shown.append(Display(content)) or shown[-1]
    )
    return shown


def work(steps=2, parts=3, **settings):
    with progress.follow(steps, parts, **settings) as follower:
        for _ in range(steps):
            for _ in range(parts):
                follower.part()
            follower.step(ROW)


def test_a_bar_and_curves_grow_and_are_gone(notebook):
    work(charts=CHARTS, logarithmic={"loss"})
    assert len(notebook) == 1 and notebook[0].contents[-1] is None, "one display, empty at the end"
    seen = notebook[0].contents[:-1]
    assert 'value="0"' in seen[0] and 'value="6"' in seen[-1] and "epoch 2 of 2" in seen[-1]
    assert "accuracy 0.9" in seen[-1] and "0.4 to 0.5" in seen[-1], "the newest value, and the range of a chart"
    assert "<path" not in seen[0] and seen[-1].count("<path") == 3
    assert seen[-1].count("L300.0") == 3, "after the last step a curve is as long as its chart"


def test_a_bar_knows_that_steps_differ_in_length(notebook):
    with progress.follow(3, [5, 1, 2]) as follower:
        for parts in (5, 1, 2):
            for _ in range(parts):
                follower.part()
            follower.step(ROW)
    bars = [int(each.partition('value="')[2].partition('"')[0]) for each in notebook[0].contents[:-1]]
    assert bars == [0, 1, 2, 3, 4, 5, 5, 6, 6, 7, 8, 8] and 'max="8"' in notebook[0].contents[0]
    assert "epoch 1 of 3" in notebook[0].contents[5] and "epoch 2 of 3" in notebook[0].contents[6]


def test_without_charts_each_metric_has_its_own(notebook):
    work(unit="tree")
    assert notebook[0].contents[-2].count("<svg") == 3 and "tree 2 of 2" in notebook[0].contents[-2]


def test_values_that_cannot_be_drawn_are_left_out():
    drawn = progress._chart("loss", {"loss": [float("nan"), 0.0, -1.0, 1.0, 100.0]}, 5, True)
    assert "M225.0,100.0 L300.0,0.0h0" in drawn and "nan" not in drawn
    assert "<path" not in progress._chart("loss", {"loss": [float("nan")]}, 5, False)


def test_interrupted_work_stays_to_be_seen(notebook):
    with pytest.raises(KeyboardInterrupt), progress.follow(2, 3) as follower:
        follower.part()
        raise KeyboardInterrupt
    assert notebook[0].contents[-1] is not None


def test_a_file_gets_an_event_a_step_and_the_notebook_nothing(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NBPROOF_EVENTS", str(tmp_path / "said"))
    work()
    events = [json.loads(line) for line in (tmp_path / "said").read_text().splitlines()]
    assert [(event["step"], event["steps"], event["unit"]) for event in events] == [(1, 2, "epoch"), (2, 2, "epoch")]
    assert events[0]["metrics"] == ROW and events[0]["seconds"] >= 0
    with progress.hushed():
        work()
    assert len((tmp_path / "said").read_text().splitlines()) == 2
    assert not notebook and capsys.readouterr() == ("", "")


def test_a_terminal_gets_lines(monkeypatch, capsys):
    monkeypatch.delenv("NBPROOF_EVENTS", raising=False)
    work()
    progress.say(message="Something to know.")
    progress.say(remedy={"parameter": "data.source", "value": "small"})
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and "epoch 1/2  train_loss 0.5" in said[0] and said[2] == "Something to know."


def test_a_floor_fails_a_stage_and_warns_in_an_exploration(monkeypatch, capsys):
    monkeypatch.delenv("NBPROOF_OUTPUT", raising=False)
    require(True, "fine")
    assert capsys.readouterr().out == ""
    require(False, "accuracy 0.5 is below 0.9")
    assert "Markdown" in capsys.readouterr().out  # as IPython displays it outside of a notebook
    monkeypatch.setenv("NBPROOF_OUTPUT", "anywhere")
    require(True, "fine")
    with pytest.raises(AssertionError, match="accuracy 0.5 is below 0.9"):
        require(False, "accuracy 0.5 is below 0.9")


def test_the_interface_loads_no_large_library():
    large = ("IPython", "mlflow", "ruamel", "numpy")
    code = f"import nbproof.notebook, sys; print([name for name in {large} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
