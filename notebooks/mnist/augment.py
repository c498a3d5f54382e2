"""Training images as the net meets them: as they are, shifted, or warped; drawn anew in every epoch.

Each function takes all images [N, 1, H, W] and returns `draw(chosen, generator)`, the batch for the indices `chosen`.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

Draw = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def unmoved(images: torch.Tensor) -> Draw:
    """The images as they are."""
    return lambda chosen, generator: images[chosen]


def shifted(images: torch.Tensor, by: int) -> Draw:
    """Each image shifted by up to `by` whole pixels each way, by a look-up; the background fills the rim."""
    height, width = images.shape[2:]
    padded = F.pad(images, (by,) * 4, value=images.min().item())
    # a view [N, 1, 2 by + 1, 2 by + 1, H, W]: nothing is copied
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)

    def draw(chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        down, right = torch.randint(0, 2 * by + 1, (2, len(chosen)), generator=generator).to(images.device)
        return windows[chosen, :, down, right]

    return draw


def warped(images: torch.Tensor, shift: float, rotate: float, scale: float, elastic: float, knots: int = 5) -> Draw:
    """Each image shifted, turned, resized and bent, drawn anew each time; the background fills the rim.

    Shifted by up to `shift` pixels each way, turned by up to `rotate` degrees, each side resized by up to the share
    `scale`, and bent by a smooth field of displacements that is normal with the deviation `elastic` pixels at
    `knots` x `knots` points and bicubic between them (P. Simard, D. Steinkraus, J. Platt, Best Practices for
    Convolutional Neural Networks, 2003, smooth theirs by a Gaussian). Bilinear between pixels, by plain look-ups:
    they are faster here than grid_sample and the same on every processor.
    """
    height, width = images.shape[2:]
    background = images.min().item()
    down, right = (torch.arange(size, device=images.device) - (size - 1) / 2 for size in (height, width))
    down, right = down.repeat_interleave(width)[None], right.repeat(height)[None]
    points = torch.eye(knots**2, device=images.device).view(-1, 1, knots, knots)
    smooth = F.interpolate(points, size=(height, width), mode="bicubic", align_corners=True).flatten(1)

    def draw(chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        count = len(chosen)
        angle, wide, high, across, along = (torch.rand(5, count, 1, generator=generator) * 2 - 1).to(images.device)
        bends = torch.randn(2 * count, knots**2, generator=generator).to(images.device) @ smooth * elastic
        angle = angle * math.radians(rotate)
        x = (1 + scale * wide) * (angle.cos() * right - angle.sin() * down) + shift * across + bends[:count]
        y = (1 + scale * high) * (angle.sin() * right + angle.cos() * down) + shift * along + bends[count:]
        padded = F.pad(images[chosen], (1, 1, 1, 1), value=background).flatten(1)
        values = _looked_up(padded, x + (width + 1) / 2, y + (height + 1) / 2, width + 2)
        return values.view(-1, 1, height, width)

    return draw


def _looked_up(pixels: torch.Tensor, x: torch.Tensor, y: torch.Tensor, width: int) -> torch.Tensor:
    """The values at the points x, y [N, P] of images whose `pixels` [N, H x `width`] stand row by row."""
    x = x.clamp(0, width - 1.001)
    y = y.clamp(0, pixels.shape[1] // width - 1.001)
    left, top = x.floor(), y.floor()
    place, x, y = (top * width + left).long(), x - left, y - top
    upper = torch.lerp(pixels.gather(1, place), pixels.gather(1, place + 1), x)
    lower = torch.lerp(pixels.gather(1, place + width), pixels.gather(1, place + width + 1), x)
    return torch.lerp(upper, lower, y)
