"""What becomes of a drawn stroke before a model sees it."""

import json

import numpy as np
import pytest
import torch
from projects import ROOT
from torch import nn

from mnist import ask, play

DOT, BAR = [[(60.0, 60.0)]], [[(40.0, 40.0), (240.0, 40.0)]]


def centred(strokes, pen=play.PEN) -> np.ndarray:
    return ask.centred(play.rasterised(strokes, pen=pen).numpy())


def middle(image: np.ndarray) -> list[float]:
    """Row and column of the centre of mass."""
    return [float((image.sum(1 - axis) * np.arange(28)).sum() / image.sum()) for axis in (0, 1)]


def test_a_dot_is_as_wide_as_the_pen():
    ink = play.rasterised(DOT)
    assert ink.shape == (140, 140) and ink.min() == 0 and ink.max() == 1
    assert ink.sum().item() == pytest.approx(torch.pi * 5**2, rel=0.03)  # ten of the raster's pixels wide
    assert ink[30, 30] == 1 and ink[30, 40] == 0


def test_size_and_place_make_no_difference():
    seven = [[(60.0, 60.0), (220.0, 60.0), (120.0, 240.0)]]
    small = [[(x / 2 + 120, y / 2 + 10) for x, y in seven[0]]]
    assert np.abs(centred(seven) - centred(small, pen=play.PEN / 2)).mean() < 0.02


def test_the_longer_side_is_20_pixels_and_the_mass_in_the_middle():
    image = centred(BAR)
    assert image.shape == (28, 28) and np.ptp(np.flatnonzero((image > 0.05).any(0))) + 1 == 20
    assert middle(image) == pytest.approx([13.5, 13.5], abs=0.5)
    hook = centred([[(50.0, 40.0), (50.0, 240.0), (200.0, 240.0)]])
    assert middle(hook) == pytest.approx([13.5, 13.5], abs=0.51)


def test_no_stroke_is_no_ink():
    assert play.rasterised([]).sum() == 0 and centred([]).sum() == 0


def test_the_nearest_image_to_a_training_image_is_itself():
    images = torch.randn(50, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert play.nearest(images, images[7:8], 3)[0] == 7


def test_each_model_is_asked():
    image = torch.zeros(1, 1, 28, 28)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    said = play.probabilities({"one": net, "two": net}, image)
    assert list(said) == ["one", "two"] and all(each.sum().item() == pytest.approx(1) for each in said.values())
    assert play.as_bars(said).count('class="probabilities"') == 2


def test_the_board_is_on_the_screen_without_scrolling():
    """The lines above it and its own size, on a screen of which JupyterLab leaves 600 pixels."""
    cells = json.loads((ROOT / "notebooks" / "play.ipynb").read_text(encoding="utf-8"))["cells"]
    place = next(place for place, cell in enumerate(cells) if "play.board(" in "".join(cell["source"]))
    lines = sum(len(cell["source"]) + 2 for cell in cells[: place + 1])
    assert lines * 20 + play.SIDE <= 600, lines
