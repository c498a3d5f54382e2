"""The figures: read on a phone, in numbers that stand out from their ground."""

import matplotlib as mpl
import pytest
import torch
from matplotlib.colors import to_rgb

from mnist import evaluation, plots
from mnist.evaluation import Calibration, Evaluation

mpl.use("agg")


def luminance(colour) -> float:
    """Of WCAG 2: of a colour between black, 0, and white, 1."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def answers(labels: torch.Tensor, predicted: torch.Tensor) -> Evaluation:
    return Evaluation(torch.nn.functional.one_hot(predicted, 10).float(), labels)


def test_each_number_of_the_confusion_stands_out_from_its_ground():
    """Of single mistakes, of many, and of all between."""
    labels, predicted = [], []
    for place, count in enumerate([1, 2, 3, 5, 8, 15, 30, 60, 120, 200, 250, 300, 400, 600, 1200, 5000]):
        labels += [place // 10] * count
        predicted += [place % 10] * count
    judged = answers(torch.tensor(labels), torch.tensor(predicted))
    figure = plots.confusion_matrix(judged)
    (axis,), shades = figure.axes, (evaluation.confusion(judged) + 1).log()
    assert len(axis.texts) == 16
    for text in axis.texts:
        column, row = map(int, text.get_position())
        ground = plots.INK((shades[row, column] / shades.max()).item())[:3]
        assert contrast(text.get_color(), ground) >= 4.5, text.get_text()


def test_letters_and_lines_stand_out_from_white():
    assert contrast(plots.GREY, "white") >= 4.5 and mpl.rcParams["figure.facecolor"] == "white"
    assert all(contrast(colour, "white") >= 3 for colour in plots.COLOURS), "of lines, by WCAG 2"


def test_a_gallery_has_five_columns_and_titles_that_a_phone_shows():
    figure = plots.gallery(torch.rand(12, 1, 28, 28), [f"{place} → 1" for place in range(12)])
    assert len(figure.axes) == 15 and figure.axes[0].get_gridspec().ncols == 5
    width = figure.get_size_inches()[0] * figure.dpi
    points = figure.axes[0].title.get_fontsize() * figure.dpi / 72 * min(1, 360 / width)
    assert width <= 400 and points >= 9, "CSS pixels on a screen of 360"


def test_calibration_has_counts_and_no_dive_from_a_few_answers():
    confidence, accuracy = torch.tensor([0.35, 0.8, 0.99]), torch.tensor([0.0, 0.8, 0.99])
    groups = Calibration(confidence, accuracy, torch.tensor([5, 400, 600]), 0.0)
    (axis,) = plots.calibration(groups).axes
    assert [text.get_text() for text in axis.texts] == ["5", "400", "600"]
    line, hollow = axis.lines[1:3]
    assert line.get_xdata().tolist() == pytest.approx([0.8, 0.99]) and line.get_linestyle() == "-"
    assert hollow.get_xdata().tolist() == pytest.approx([0.35]) and hollow.get_linestyle() == "None"
