"""What is seen of a training, and where."""

import json

import pytest

from digits import progress

ROW = {"train_loss": 0.5, "validation_loss": 0.4, "validation_accuracy": 0.9}


class Display:
    """Stands for the display that a notebook would show."""

    def __init__(self, shown):
        self.contents = [shown.data]

    def update(self, shown, raw=False):
        self.contents.append(shown if raw else shown.data)


@pytest.fixture
def notebook(monkeypatch):
    """A notebook that somebody looks at; its displays."""
    shown = []
    shell = type("Shell", (), {"kernel": object()})()
    monkeypatch.delenv("PROGRESS_FILE", raising=False)
    monkeypatch.setattr(progress, "get_ipython", lambda: shell)
    monkeypatch.setattr(progress, "EVERY", 0)
    monkeypatch.setattr(progress, "display", lambda content, display_id: shown.append(Display(content)) or shown[-1])
    return shown


def train(epochs=2, steps=3):
    with progress.training(epochs, steps) as follower:
        for _ in range(epochs):
            for _ in range(steps):
                follower.step()
            follower.epoch(ROW)


def test_a_bar_and_curves_grow_and_are_gone(notebook):
    train()
    assert len(notebook) == 1 and notebook[0].contents[-1] == {}, "one display, empty at the end"
    seen = notebook[0].contents[:-1]
    assert 'value="0"' in seen[0] and 'value="6"' in seen[-1] and "epoch 2 of 2" in seen[-1] and "accuracy 0.9000" in seen[-1]
    assert [each.count("<circle") for each in seen] == sorted(each.count("<circle") for each in seen) and seen[-1].count("<circle") == 6


def test_an_interrupted_training_stays_to_be_seen(notebook):
    with pytest.raises(KeyboardInterrupt), progress.training(2, 3) as follower:
        follower.step()
        raise KeyboardInterrupt
    assert notebook[0].contents[-1] != {}


def test_a_file_gets_an_event_an_epoch_and_the_notebook_nothing(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PROGRESS_FILE", str(tmp_path / "progress"))
    train()
    events = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    assert [event["epoch"] for event in events] == ["1/2", "2/2"] and events[0]["accuracy"] == "0.9000"
    with progress.hushed():
        train()
    assert len((tmp_path / "progress").read_text().splitlines()) == 2
    assert not notebook and capsys.readouterr() == ("", "")


def test_a_terminal_gets_lines(monkeypatch, capsys):
    monkeypatch.delenv("PROGRESS_FILE", raising=False)
    monkeypatch.setattr(progress, "get_ipython", lambda: None)
    train()
    assert capsys.readouterr().err.count("accuracy 0.9000") == 2
