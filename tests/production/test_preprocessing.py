"""Pictures as the model's input, and its output as text."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from nbproof.notebook.errors import UserError
from production import preprocessing

METADATA = {"mean": 0.13, "deviation": 0.31, "ink": "bright", "ink_side": 20}
SEVEN = [(60, 50), (140, 50), (100, 160)]


def picture(path, paper, ink, points=SEVEN, size=(200, 220), mode="RGB", **options):
    image = Image.new(mode, size, paper)
    ImageDraw.Draw(image).line(points, fill=ink, width=14, joint="curve")
    image.save(path, **options)
    return path


def test_colours_position_and_rotation_of_the_camera_make_no_difference(tmp_path):
    dark = picture(tmp_path / "dark.png", "white", "black")
    bright = picture(tmp_path / "bright.png", "#101010", "#f8f8f8")
    clear = picture(tmp_path / "clear.png", (0, 0, 0, 0), (0, 0, 0, 255), mode="RGBA")
    moved = picture(tmp_path / "moved.png", "white", "black",
                    [(x + 150, y + 90) for x, y in SEVEN], (400, 300))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned = picture(tmp_path / "turned.png", "white", "black", [(y, 199 - x) for x, y in SEVEN],
                     (220, 200), exif=exif)
    inputs = preprocessing.prepare([dark, bright, clear, moved, turned], METADATA)
    assert inputs.shape == (5, 1, 28, 28) and inputs.dtype == np.float32
    assert np.abs(inputs[1:4] - inputs[0]).max() < 0.1
    assert np.abs(inputs[4] - inputs[0]).mean() < 0.1
    grey = inputs[0, 0] * METADATA["deviation"] + METADATA["mean"]
    rows, columns = np.flatnonzero((grey > 0.2).any(1)), np.flatnonzero((grey > 0.2).any(0))
    assert np.ptp(rows) + 1 == 20 > np.ptp(columns) + 1
    for axis in (0, 1):
        mass = grey.sum(1 - axis)
        assert (mass * np.arange(28)).sum() / mass.sum() == pytest.approx(13.5, abs=0.51)


def test_an_image_of_the_training_form_is_not_moved(tmp_path):
    grey = np.zeros((28, 28), np.uint8)
    grey[2:7, 3:5] = 255
    Image.fromarray(grey).save(tmp_path / "small.png")
    (bright,) = preprocessing.prepare([tmp_path / "small.png"], METADATA)
    assert np.allclose(bright[0], (grey / 255 - 0.13) / 0.31)
    (dark,) = preprocessing.prepare([tmp_path / "small.png"], METADATA | {"ink": "dark"})
    assert np.allclose(dark[0], (1 - grey / 255 - 0.13) / 0.31)


@pytest.mark.parametrize("content, message", [
    (None, "has one colour only"), (b"hello", "cannot be read as a picture"),
    (b"", "cannot be read as a picture"), (200, "cannot be read"), (-1, "There is no picture")])
def test_what_is_no_picture_of_a_digit_is_refused(tmp_path, content, message):
    path = tmp_path / "digit.png"
    if content is None:
        Image.new("L", (50, 50), 200).save(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content > 0:  # a damaged file
        picture(path, "white", "black")
        path.write_bytes(path.read_bytes()[:content])
    with pytest.raises(UserError, match=message) as error:
        preprocessing.prepare([path], METADATA)
    assert str(path) in str(error.value)
