"""What a person sees of some work while it runs, and where; and floors."""

import IPython
import pytest

from nbproof.notebook import progress
from nbproof.notebook.errors import require

ROW = {"train_loss": 0.5, "validation_loss": 0.4, "accuracy": 0.9}
CHARTS = {"loss": ["train_loss", "validation_loss"], "accuracy": ["accuracy"]}


class Kernel:
    """Stands for the kernel of a notebook: what its displays have shown."""

    def __init__(self):
        self.kernel, self.shown = self, []

    def display(self, content: dict, raw: bool, display_id: bool = False):
        self.shown.append(content.get("text/html"))
        return self

    update = display


@pytest.fixture
def kernel(monkeypatch):
    """The kernel of a notebook that somebody has open."""
    opened = Kernel()
    monkeypatch.delenv("NBPROOF_OUTPUT", raising=False)
    monkeypatch.setattr(IPython, "get_ipython", lambda: opened)
    monkeypatch.setattr(IPython.display, "display", opened.display)
    monkeypatch.setattr(progress, "EVERY", 0)
    return opened


def work(parts: int | list[int] = 3, **settings) -> None:
    """Two steps, or as many as `parts` lists."""
    counts = parts if isinstance(parts, list) else [parts] * 2
    with progress.follow(len(counts), parts, **settings) as follower:
        for count in counts:
            for _ in range(count):
                follower.part()
            follower.step(ROW)


def test_a_bar_and_curves_grow_and_are_gone(kernel):
    work([5, 1, 2], charts=CHARTS, logarithmic={"loss"})
    assert kernel.shown.pop() is None, "the display is empty at the end"
    bars = [int(each.partition('value="')[2].partition('"')[0]) for each in kernel.shown]
    assert bars == [0, 1, 2, 3, 4, 5, 5, 6, 6, 7, 8, 8] and 'max="8"' in kernel.shown[0]
    assert "epoch 2 of 3" in kernel.shown[6] and "accuracy 0.9" in kernel.shown[-1]
    assert "<path" not in kernel.shown[0] and kernel.shown[-1].count("<path") == 3
    assert 'viewBox="0 -0.9 2 1"' in kernel.shown[-1], "curves are as wide as the chart at the end"
    with progress.follow(5, logarithmic={"loss"}, unit="tree") as follower:
        for value in (float("nan"), 0.0, -1.0, 1.0, 100.0):  # the first three cannot be drawn
            follower.step({"loss": value})
    assert "M3,-0 L4,-2h.01" in kernel.shown[-2] and "tree 5 of 5" in kernel.shown[-2]
    with pytest.raises(KeyboardInterrupt), progress.follow(2):
        raise KeyboardInterrupt
    assert kernel.shown[-1], "interrupted work stays to be seen"
    kernel.shown.clear()
    with progress.hushed():
        work()
    assert not kernel.shown


def test_a_terminal_gets_lines(monkeypatch, capsys):
    monkeypatch.delenv("NBPROOF_OUTPUT", raising=False)
    work()
    progress.say(message="Something to know.")
    progress.say(fallback={"parameter": "data.source", "value": "small"})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "epoch 1/2  train_loss 0.5" in lines[0]
    assert lines[2] == "Something to know."


def test_a_floor_fails_a_stage_and_warns_in_an_exploration(monkeypatch, capsys):
    monkeypatch.delenv("NBPROOF_OUTPUT", raising=False)
    require(False, "accuracy 0.5 is below 0.9")
    assert "Markdown" in capsys.readouterr().out  # as IPython displays it outside of a notebook
    monkeypatch.setenv("NBPROOF_OUTPUT", "anywhere")
    require(True, "fine")
    with pytest.raises(AssertionError, match="accuracy 0.5 is below 0.9 .in JupyterLab and"):
        require(False, "accuracy 0.5 is below 0.9")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "a" * 40)
    require(False, "accuracy 0.5 is below 0.9")  # an experiment may find out what happens
