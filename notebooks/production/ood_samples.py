"""Out-of-distribution (OOD) samples: images that are no digit.

Noise, blank images, letters, mirrored, upturned and cut digits, two digits at once.
All are ink from 0 to 1, float32 [N, 1, 28, 28]; `generator` draws what is random.
"""

import string
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from production.preprocessing import SIDE, centred

# Some letters, and some digits that are mirrored, upside down or cut in half, look like a digit.
# The detector does not learn from these lookalikes, and the evaluation counts them separately.
LETTERS_LIKE_DIGITS = "OoDQIlSsZzBbgq"
CLEAR_LETTERS = "".join(sorted({*string.ascii_letters} - {*LETTERS_LIKE_DIGITS}))
# Fonts that come with matplotlib: the detector learns from the first, the others evaluate it.
TRAINING_FONTS = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
                  "cmr10", "cmss10", "cmtt10", "cmmi10", "cmb10")
TEST_FONTS = tuple(f"DejaVu{family}" for family in (
    "Sans", "Sans-Bold", "Sans-Oblique", "SansMono", "SansMono-Bold", "SansMono-Oblique",
    "Serif", "Serif-Bold", "Serif-Italic"))


def noise(count: int, generator: torch.Generator) -> torch.Tensor:
    """Return a quarter each of uniform noise, normal noise, black and white dots, and clouds."""
    shape = (count // 4, 1, SIDE, SIDE)
    uniform = torch.rand(shape, generator=generator)
    normal = (torch.randn(shape, generator=generator) / 2 + 0.5).clamp(0, 1)
    density = torch.rand(count // 4, 1, 1, 1, generator=generator) * 0.6
    dots = (torch.rand(shape, generator=generator) < density).float()
    coarse = torch.rand(count - 3 * (count // 4), 1, 7, 7, generator=generator)
    clouds = F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return torch.cat([uniform, normal, dots, clouds])


def blanks(count: int) -> torch.Tensor:
    """Return plain greys, from black to white, a half of them with one black dot."""
    grey = torch.linspace(0, 1, count).view(-1, 1, 1, 1).repeat(1, 1, SIDE, SIDE)
    grey[::2, :, 9:11, 9:11] = 1
    return grey


def letters(fonts: tuple[str, ...], characters: str) -> torch.Tensor:
    """Return each of `characters` in each of `fonts`, scaled and centred as drawings are."""
    drawn = []
    for name in fonts:
        path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
        font = ImageFont.truetype(str(path), 64)
        for character in characters:
            page = Image.new("L", (160, 160))
            ImageDraw.Draw(page).text((80, 80), character, fill=255, font=font, anchor="mm")
            drawn.append(centred(np.asarray(page, dtype=np.float64) / 255))
    return torch.from_numpy(np.stack(drawn)).float()[:, None]


def cut(digits: torch.Tensor) -> torch.Tensor:
    """Return `digits` without their upper, lower, left or right half, in turn."""
    halves, middle = digits.clone(), SIDE // 2
    halves[0::4, :, :middle] = 0
    halves[1::4, :, middle:] = 0
    halves[2::4, :, :, :middle] = 0
    halves[3::4, :, :, middle:] = 0
    return halves


TRANSFORMS = {  # with the digits that stay digits
    "mirrored": (lambda digits: digits.flip(3), (0, 1, 8)),
    "upside down": (lambda digits: digits.flip(2), (0, 1, 3, 8)), "cut": (cut, (1,))}


def transformed(digits: torch.Tensor, labels: torch.Tensor,
                lookalikes: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each of TRANSFORMS and what it makes of `digits`: no digits, or the `lookalikes`."""
    for kind, (transform, unchanged) in TRANSFORMS.items():
        chosen = torch.isin(labels, torch.tensor(unchanged)) == lookalikes
        yield kind, transform(digits[chosen])


def overlaid(digits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return pairs of digits, one on top of the other."""
    return torch.maximum(digits, digits[torch.randperm(len(digits), generator=generator)])


def side_by_side(digits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return pairs of digits beside each other, as high as one digit and half as wide."""
    narrow = F.interpolate(digits[:, :, 2:-2, 2:-2], size=(20, 14), mode="bilinear", antialias=True)
    others = narrow[torch.randperm(len(digits), generator=generator)]
    return F.pad(torch.cat([narrow, others], 3), (0, 0, 4, 4))


def samples(digits: torch.Tensor, labels: torch.Tensor,
            generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield OOD samples for the evaluation by kind, made of `digits` where a kind needs digits."""
    yield "noise", noise(2000, generator)
    yield "blanks", blanks(200)
    yield "letters", letters(TEST_FONTS, CLEAR_LETTERS)
    yield from transformed(digits, labels)
    yield "two side by side", side_by_side(digits, generator)
    yield "two overlaid", overlaid(digits, generator)
    yield "inverted", 1 - digits


def lookalikes(digits: torch.Tensor, labels: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what `samples` leaves out because it looks like a digit, by the same kinds."""
    yield "letters", letters(TEST_FONTS, LETTERS_LIKE_DIGITS)
    yield from transformed(digits, labels, lookalikes=True)
