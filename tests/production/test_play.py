"""What becomes of a stroke before a model sees it."""

import numpy as np
import pytest
from torch import nn

from production import play, preprocessing

SEVEN = [[(60.0, 60.0), (220.0, 60.0), (120.0, 240.0)]]


def test_strokes_become_ink_of_which_size_and_position_make_no_difference():
    dot = play.rasterised([[(60.0, 60.0)]])
    assert dot.shape == (140, 140) and dot[30, 30] == 1
    assert dot.sum() == pytest.approx(np.pi * 5**2, rel=0.05)  # as wide as the pen
    small = [[(x / 2 + 120, y / 2 + 10) for x, y in SEVEN[0]]]
    images = [preprocessing.centred(play.rasterised(strokes, pen))
              for strokes, pen in ((SEVEN, play.PEN), (small, play.PEN / 2))]
    assert np.abs(images[0] - images[1]).mean() < 0.02


def test_predictions_and_neighbours(dataset):
    image = play.normalised(play.rasterised(SEVEN), dataset)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    predicted = play.probabilities({"one": net, "two": net}, image)
    assert [values.sum() for values in predicted.values()] == pytest.approx([1, 1])
    table = play.bars(predicted)
    assert table.count("<tr>") == 3 and preprocessing.best(predicted["one"]) in table
    images = dataset.train.images
    assert play.nearest(images, images[7], 3)[0] == 7
    assert play.neighbours(images[7], dataset).count("<img") == 9
