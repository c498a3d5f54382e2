"""From pictures of anybody's digits to a model's input, and from its output to an answer in words. Needs no torch."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from nbproof.notebook.errors import UserError

SIDE, INK_SIDE = 28, 20  # pixels: an image of the training set, and the longer side of the digit in it
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # no others are tried: each reader is a way in for what is hostile
ORIENTATION = 0x0112  # the note of EXIF, and what undoes each of its values
TURNS = dict(enumerate((
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90), 2))
MOST, ENOUGH = 25_000_000, 1000  # pixels of a picture that is read; the side to which a larger one is reduced at once


def prepare(paths: list[Path], metadata: dict) -> np.ndarray:
    """The pictures at `paths` as the model expects them, float32 [N, 1, 28, 28].

    `metadata` is the model's: `ink` (bright or dark), `ink_side`, `mean` and `deviation`. UserError if a file is no
    picture, or nothing is drawn on it.
    """
    return np.stack([_prepared(path, metadata) for path in paths]).astype(np.float32)[:, None]


def answer(output: np.ndarray, place: int) -> str:
    """The logits [10] of one image as text: the digit with its probability, then a line and a bar for each digit.

    `place` is the number of the image, from 0; an empty line separates it from the image before.
    """
    chances = np.exp(output.astype(np.float64) - output.max())
    chances /= chances.sum()
    lines = [f"{digit}  {chance:6.1%}  {'#' * round(40 * chance)}".rstrip() for digit, chance in enumerate(chances)]
    return "\n".join([*([""] if place else []), in_words(chances), *lines])


def in_words(chances: np.ndarray) -> str:
    """The most probable digit of `chances` [10] and its probability: `7 (99.7 %)`."""
    return f"{chances.argmax()} ({100 * chances.max():.1f} %)"


def centred(ink: np.ndarray, longer: int = INK_SIDE) -> np.ndarray:
    """Ink [H, W] as MNIST holds its digits (Y. LeCun, C. Cortes, C. Burges, The MNIST database), [28, 28] from 0 to 1.

    The longer side becomes `longer` pixels, the centre of mass is put in the middle. Without any ink all is zero.
    """
    page = np.zeros((SIDE, SIDE))
    paper = np.median(ink)
    if ink.max() <= paper:
        return page
    ink = np.clip((ink - paper) / (ink.max() - paper), 0, 1)
    rows, columns = (np.flatnonzero((ink > 0.2).any(axis)) for axis in (1, 0))
    drawn = Image.fromarray((ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] * 255).astype(np.uint8))
    size = [max(1, round(length * longer / max(drawn.size))) for length in drawn.size]
    small = np.asarray(drawn.resize(size, Image.Resampling.LANCZOS), dtype=np.float64) / 255
    (top, height), (left, width) = (_place(small.sum(1 - axis)) for axis in (0, 1))
    page[top : top + height, left : left + width] = small
    return page


def _place(mass: np.ndarray) -> tuple[int, int]:
    """Where ink with the given mass at each of its [length] places begins, centred in SIDE pixels; and its length."""
    centre = (mass * np.arange(len(mass))).sum() / mass.sum()
    return min(max(0, round((SIDE - 1) / 2 - centre)), SIDE - len(mass)), len(mass)


def _prepared(path: Path, metadata: dict) -> np.ndarray:
    """One picture, normalised, [28, 28]. Which of dark and bright is the paper, the picture's rim tells."""
    grey = _read(path)
    rim = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = 1 - grey if np.median(rim) > 0.5 else grey
    if ink.max() - ink.min() < 0.1:
        raise UserError(f"{path} has one colour only: draw a digit on it first.")
    if grey.shape != (SIDE, SIDE):
        ink = centred(ink, metadata["ink_side"])
    if metadata["ink"] != "bright":
        ink = 1 - ink
    return (ink - metadata["mean"]) / metadata["deviation"]


def _read(path: Path) -> np.ndarray:
    """The picture as grey values [H, W] from 0 to 1; what is transparent is white."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST:
                size = f"{image.width} x {image.height}"
                raise UserError(f"{path} has {size} pixels: use a picture of at most 5000 x 5000.")
            if max(image.size) > ENOUGH:
                image.thumbnail((ENOUGH, ENOUGH), Image.Resampling.BOX)
            layers = _turned(image).convert("RGBA")
    except FileNotFoundError:
        raise UserError(f"There is no picture {path}: name one that is there, such as digit.png.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture ({error}): use a PNG or JPEG file.") from None
    white = Image.new("RGBA", layers.size, "white")
    return np.asarray(Image.alpha_composite(white, layers).convert("L"), dtype=np.float64) / 255


def _turned(image: Image.Image) -> Image.Image:
    """As browsers show it: a phone notes how it was held, and turns nothing. A note that cannot be read is none."""
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # of a parser of anybody's bytes, which raises many kinds
        return image
    return image if turn is None else image.transpose(turn)
