"""Images that are no digit: noise, blanks, letters, mirrored and cut digits, two digits at once, photographs.

Each is ink from 0 to 1, float32 [N, 1, 28, 28], drawn by `generator` where chance has a part in it.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from mnist import ask

SIDE = ask.SIDE
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# What is a digit to the eye all the same: these letters, once they have the size and the place of a digit; these
# digits, mirrored, upside down, or cut in half. They teach nothing, and are counted apart.
LIKE_DIGITS = "OoDQIlSsZzBbgq"
SAME_MIRRORED, SAME_UPSIDE_DOWN, SAME_CUT = (0, 1, 8), (0, 1, 3, 8), (1,)
# Fonts that come with matplotlib. The models are taught by letters of the first ones, and asked about the others.
TAUGHT = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
          "cmr10", "cmss10", "cmtt10", "cmmi10", "cmb10")
ASKED = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold",
         "DejaVuSansMono-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic")


def noise(count: int, generator: torch.Generator) -> torch.Tensor:
    """A quarter each: even grey values, normal ones, black and white dots, and clouds."""
    shape = (count // 4, 1, SIDE, SIDE)
    even = torch.rand(shape, generator=generator)
    normal = (torch.randn(shape, generator=generator) / 2 + 0.5).clamp(0, 1)
    share = torch.rand(count // 4, 1, 1, 1, generator=generator) * 0.6
    dots = (torch.rand(shape, generator=generator) < share).float()
    coarse = torch.rand(count - 3 * (count // 4), 1, 7, 7, generator=generator)
    clouds = F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return torch.cat([even, normal, dots, clouds])


def blanks(count: int, generator: torch.Generator) -> torch.Tensor:
    """A half each: one grey everywhere, from black to white; and a dot on empty paper."""
    grey = torch.linspace(0, 1, count // 2).view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE)
    dots = torch.zeros(count - count // 2, 1, SIDE, SIDE)
    for dot, (row, column) in zip(dots, torch.randint(2, SIDE - 4, (len(dots), 2), generator=generator).tolist()):
        dot[0, row : row + 2, column : column + 2] = 1
    return torch.cat([grey, dots])


def letters(fonts: tuple[str, ...], characters: str) -> torch.Tensor:
    """Each of `characters` in each of `fonts`, brought to the size and the place of a digit, as drawings are."""
    drawn = []
    for name in fonts:
        font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), 64)
        for character in characters:
            page = Image.new("L", (160, 160))
            ImageDraw.Draw(page).text((80, 80), character, fill=255, font=font, anchor="mm")
            drawn.append(ask.centred(np.asarray(page, dtype=np.float64) / 255))
    return torch.from_numpy(np.stack(drawn)).float()[:, None]


def clear_letters() -> str:
    """The letters that are no digit to the eye."""
    return "".join(letter for letter in LETTERS if letter not in LIKE_DIGITS)


def without(digits: torch.Tensor, labels: torch.Tensor, same: tuple[int, ...]) -> torch.Tensor:
    """The images whose label is none of `same`."""
    return digits[~torch.isin(labels, torch.tensor(same))]


def only(digits: torch.Tensor, labels: torch.Tensor, same: tuple[int, ...]) -> torch.Tensor:
    """The images whose label is one of `same`."""
    return digits[torch.isin(labels, torch.tensor(same))]


def mirrored(digits: torch.Tensor) -> torch.Tensor:
    """Left and right exchanged."""
    return digits.flip(3)


def upside_down(digits: torch.Tensor) -> torch.Tensor:
    """Top and bottom exchanged."""
    return digits.flip(2)


def cut(digits: torch.Tensor) -> torch.Tensor:
    """A half is gone: of the first digit the upper one, of the second the lower, the left, the right, and so on."""
    halves = digits.clone()
    middle = SIDE // 2
    for start, gone in enumerate(((slice(middle), slice(None)), (slice(middle, None), slice(None)),
                                  (slice(None), slice(middle)), (slice(None), slice(middle, None)))):
        halves[start::4, :, gone[0], gone[1]] = 0
    return halves


def pairs(digits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Two digits beside each other, each as high as a digit is and half as wide."""
    narrow = F.interpolate(digits[:, :, 2:-2, 2:-2], size=(20, 14), mode="bilinear", antialias=True)
    others = narrow[torch.randperm(len(digits), generator=generator)]
    return F.pad(torch.cat([narrow, others], 3), (0, 0, 4, 4))


def overlaid(digits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Two digits, one on the other."""
    return torch.maximum(digits, digits[torch.randperm(len(digits), generator=generator)])


def photographs(count: int, generator: torch.Generator) -> torch.Tensor:
    """Square pieces, of whatever size and place, of the two photographs that scikit-learn carries."""
    from sklearn.datasets import load_sample_images

    pieces = []
    photos = [torch.from_numpy(each.mean(2) / 255).float() for each in load_sample_images().images]
    for number in range(count):
        photo = photos[number % len(photos)]
        side = int(torch.randint(SIDE, 300, (), generator=generator))
        top, left = (int(torch.randint(size - side, (), generator=generator)) for size in photo.shape)
        pieces.append(F.interpolate(photo[None, None, top : top + side, left : left + side], (SIDE, SIDE), mode="area"))
    return torch.cat(pieces)


def kinds(digits: torch.Tensor, labels: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """What a model should not answer, by kind, made of the images `digits` where it is made of digits."""
    return {
        "noise": noise(2000, generator), "blanks": blanks(200, generator),
        "letters": letters(ASKED, clear_letters()),
        "mirrored": mirrored(without(digits, labels, SAME_MIRRORED)),
        "upside down": upside_down(without(digits, labels, SAME_UPSIDE_DOWN)),
        "cut": cut(without(digits, labels, SAME_CUT)), "two side by side": pairs(digits, generator),
        "photographs": photographs(500, generator), "two overlaid": overlaid(digits, generator), "inverted": 1 - digits,
    }


def lookalikes(digits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What was left out of `kinds`, because it is a digit to the eye all the same."""
    named = ((" and ".join([", ".join(map(str, same[:-1])), str(same[-1])]) if same[1:] else str(same[0]))
             for same in (SAME_MIRRORED, SAME_UPSIDE_DOWN, SAME_CUT))
    mirror, turn, half = named
    return {
        f"the letters {LIKE_DIGITS}": letters(ASKED, LIKE_DIGITS),
        f"mirrored {mirror}": mirrored(only(digits, labels, SAME_MIRRORED)),
        f"upside down {turn}": upside_down(only(digits, labels, SAME_UPSIDE_DOWN)),
        f"cut {half}": cut(only(digits, labels, SAME_CUT)),
    }
