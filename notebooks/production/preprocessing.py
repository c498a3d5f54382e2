"""Pictures of digits as a model's input, and a model's output as text. Imports no PyTorch."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nbproof.notebook.errors import UserError

SIDE, DIGIT_SIDE = 28, 20  # pixels: an image of the training set, and the longer side of its digit
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # no others: each decoder can be attacked
MAX_PIXELS, MAX_SIDE = 25_000_000, 1000  # of a picture that is read; of one that is not reduced


def prepare(paths: list[Path], metadata: dict) -> np.ndarray:
    """Return the pictures at `paths` as the model's input, float32 [N, 1, 28, 28].

    `metadata` is the model's: `ink` (bright or dark), `ink_side`, `mean` and `deviation`. Raise
    UserError for a file that is no picture, and for a picture on which nothing is drawn.
    """
    return np.stack([_prepared(path, metadata) for path in paths]).astype(np.float32)[:, None]


def answer(logits: np.ndarray, case: int) -> str:
    """Return the logits [10] of one image as text: the best digit, then a bar for each digit.

    `case` is the number of the image, from 0; an empty line separates it from the one before.
    """
    probabilities = np.exp(logits.astype(np.float64) - logits.max())
    probabilities /= probabilities.sum()
    bars = [f"{digit}  {value:6.1%}  {'#' * round(40 * value)}".rstrip()
            for digit, value in enumerate(probabilities)]
    return "\n".join([*([""] if case else []), best(probabilities), *bars])


def best(probabilities: np.ndarray) -> str:
    """Return the most probable digit and its probability: `7 (99.7%)`."""
    return f"{probabilities.argmax()} ({100 * probabilities.max():.1f}%)"


def centred(ink: np.ndarray, side: int = DIGIT_SIDE) -> np.ndarray:
    """Return `ink` [H, W] in the form of MNIST's images, [28, 28] from 0 to 1.

    As in Y. LeCun, C. Cortes, C. Burges, The MNIST database: the longer side of the digit becomes
    `side` pixels, and its centre of mass moves to the middle. Without any ink all is zero.
    """
    image, paper = np.zeros((SIDE, SIDE)), np.median(ink)
    if ink.max() <= paper:
        return image
    ink = np.clip((ink - paper) / (ink.max() - paper), 0, 1)
    rows, columns = (np.flatnonzero((ink > 0.2).any(axis)) for axis in (1, 0))
    cropped = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    digit = Image.fromarray((cropped * 255).astype(np.uint8))
    size = [max(1, round(length * side / max(digit.size))) for length in digit.size]
    small = np.asarray(digit.resize(size, Image.Resampling.BILINEAR), dtype=np.float64) / 255
    top, left = (_start(small.sum(1 - axis)) for axis in (0, 1))
    image[top : top + small.shape[0], left : left + small.shape[1]] = small
    return image


def _start(mass: np.ndarray) -> int:
    """Return the first of SIDE pixels that `mass` [length] covers with its centre in the middle."""
    centre = (mass * np.arange(len(mass))).sum() / mass.sum()
    return min(max(0, round((SIDE - 1) / 2 - centre)), SIDE - len(mass))


def _prepared(path: Path, metadata: dict) -> np.ndarray:
    """Return one picture, normalised, [28, 28]. Paper is what most of the border consists of."""
    grey = _read(path)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = 1 - grey if np.median(border) > 0.5 else grey
    if ink.max() - ink.min() < 0.1:
        raise UserError(f"{path} has one colour only: draw a digit on it first.")
    if grey.shape != (SIDE, SIDE):
        ink = centred(ink, metadata["ink_side"])
    if metadata["ink"] != "bright":
        ink = 1 - ink
    return (ink - metadata["mean"]) / metadata["deviation"]


def _read(path: Path) -> np.ndarray:
    """Return the picture as grey values [H, W] from 0 to 1; what is transparent is white."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{path} has {image.width} x {image.height} pixels: use a picture "
                                "of at most 5000 x 5000.")
            if max(image.size) > MAX_SIDE:
                image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
            layers = _upright(image).convert("RGBA")
    except FileNotFoundError:
        raise UserError(f"There is no picture {path}: name one, such as digit.png.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError,
            Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture ({error}): use a PNG or JPEG file."
                        ) from None
    white = Image.new("RGBA", layers.size, "white")
    return np.asarray(Image.alpha_composite(white, layers).convert("L"), dtype=np.float64) / 255


def _upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF data say, which is how browsers show it."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data raise many kinds; browsers then show the image as it is
        return image
