"""Pictures as the model expects them, and its answers in words."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mnist import ask
from nbproof.notebook.errors import UserError

METADATA = {"mean": 0.13, "deviation": 0.31, "ink": "bright", "ink_side": 20}
SEVEN = [(60, 50), (140, 50), (100, 160)]


def picture(path, paper, ink, points=SEVEN, size=(200, 220), mode="RGB"):
    image = Image.new(mode, size, paper)
    ImageDraw.Draw(image).line(points, fill=ink, width=14, joint="curve")
    image.save(path)
    return path


def test_paper_place_and_size_make_no_difference(tmp_path):
    dark = picture(tmp_path / "dark.png", "white", "black")
    bright = picture(tmp_path / "bright.png", "#101010", "#f8f8f8")
    clear = picture(tmp_path / "clear.png", (0, 0, 0, 0), (0, 0, 0, 255), mode="RGBA")
    moved = picture(tmp_path / "moved.png", "white", "black", [(x + 150, y + 90) for x, y in SEVEN], (400, 300))
    inputs = ask.prepare([dark, bright, clear, moved], METADATA)
    assert inputs.shape == (4, 1, 28, 28) and inputs.dtype == np.float32
    for other in inputs[1:]:
        assert np.abs(other - inputs[0]).max() < 0.1
    grey = inputs[0, 0] * METADATA["deviation"] + METADATA["mean"]
    rows, columns = np.flatnonzero((grey > 0.2).any(1)), np.flatnonzero((grey > 0.2).any(0))
    assert np.ptp(rows) + 1 == 20 > np.ptp(columns) + 1 and grey.min() == pytest.approx(0, abs=1e-6)
    for axis in (0, 1):
        mass = grey.sum(1 - axis)
        assert (mass * np.arange(28)).sum() / mass.sum() == pytest.approx(13.5, abs=0.51)


def test_an_image_of_the_training_form_is_not_moved(tmp_path):
    grey = np.zeros((28, 28), np.uint8)
    grey[2:7, 3:5] = 255
    Image.fromarray(grey).save(tmp_path / "small.png")
    (image,) = ask.prepare([tmp_path / "small.png"], METADATA)
    assert np.allclose(image[0], (grey / 255 - 0.13) / 0.31)


def test_a_model_of_dark_ink_gets_dark_ink(tmp_path):
    path = picture(tmp_path / "dark.png", "white", "black")
    (bright,), (dark,) = (ask.prepare([path], METADATA | {"ink": ink}) for ink in ("bright", "dark"))
    assert np.allclose(bright * 0.31 + 0.13, 1 - (dark * 0.31 + 0.13), atol=1e-6)


@pytest.mark.parametrize(
    "name, content, said",
    [("blank.png", None, "has one colour only"), ("text.png", b"hello", "cannot be read as a picture"),
     ("empty.png", b"", "cannot be read as a picture")],
)
def test_what_is_no_picture_of_a_digit_is_refused(tmp_path, name, content, said):
    path = tmp_path / name
    Image.new("L", (50, 50), 200).save(path) if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=said) as refused:
        ask.prepare([path], METADATA)
    assert str(path) in str(refused.value)


def test_a_missing_picture_is_refused(tmp_path):
    with pytest.raises(UserError, match="There is no picture"):
        ask.prepare([tmp_path / "none.png"], METADATA)


def test_a_broken_picture_is_refused(tmp_path):
    path = picture(tmp_path / "whole.png", "white", "black")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be read"):
        ask.prepare([path], METADATA)


def test_an_answer_in_words():
    first, *lines = ask.answer(np.log(np.array([0.5] + [0.5 / 9] * 9)) + 1000, 0).splitlines()
    assert first == "0 (50.0 %)" and len(lines) == 10
    assert lines[0] == "0   50.0%  " + "#" * 20 and lines[9] == "9    5.6%  ##"
    assert ask.answer(np.zeros(10), 1).startswith("\n0 (10.0 %)")  # an empty line between two answers
