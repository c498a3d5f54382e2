"""Figures are read on a phone, in numbers that stand out from their ground."""

from dataclasses import replace

import matplotlib as mpl
import torch
from matplotlib.colors import to_rgb

from mnist import evaluation, figures
from mnist.sources import SOURCES

mpl.use("agg")


def contrast(one, other) -> float:
    """The contrast of WCAG 2 between two colours: from 1 to 21."""
    def luminance(colour):
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
                  for part in to_rgb(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_each_number_of_the_confusion_stands_out(small, predicted):
    """Of single mistakes, of many, and of all between."""
    counts = [1, 2, 3, 5, 8, 15, 30, 60, 120, 200, 250, 300, 400, 600, 1200, 5000]
    labels, classes = ([number for place, count in enumerate(counts) for number in [split(place)]
                        * count] for split in (lambda place: place // 10, lambda place: place % 10))
    found = predicted(classes, labels)
    garments = replace(small, source=SOURCES["fashion"])
    (axis,) = figures.confusion_matrix(found, garments).axes
    shades = (evaluation.confusion(found) + 1).log()
    assert len(axis.texts) == 16
    assert [text.get_text() for text in axis.get_yticklabels()] == SOURCES["fashion"].classes
    for text in axis.texts:
        column, row = map(int, text.get_position())
        ground = figures.INK((shades[row, column] / shades.max()).item())[:3]
        assert contrast(text.get_color(), ground) >= 4.5, text.get_text()
    assert contrast(figures.GREY, "white") >= 4.5
    assert all(contrast(colour, "white") >= 3 for colour in figures.COLOURS), "lines, by WCAG 2"


def test_a_gallery_has_rows_and_titles_that_a_phone_shows():
    figure = figures.gallery(torch.rand(12, 1, 28, 28), [f"{number} → 1" for number in range(12)])
    (axis,) = figure.axes
    assert len(axis.texts) == 12 and len({text.get_position()[1] for text in axis.texts}) == 3
    width = figure.get_size_inches()[0] * figure.dpi
    assert width <= 400 and axis.texts[0].get_fontsize() * figure.dpi / 72 * 360 / width >= 9
