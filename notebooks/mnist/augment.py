"""Training images as a net meets them: shifted or warped, at random, in every batch anew.

Each function returns an Augmentation: it takes a batch [N, 1, 28, 28] and a generator, and returns
the changed batch.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

SIDE = 28
Augmentation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def shift(by: int) -> Augmentation:
    """Shift each image by up to `by` whole pixels each way; the background fills the border."""

    def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        padded = F.pad(images, (by,) * 4, value=images.min().item())
        windows = padded.unfold(2, SIDE, 1).unfold(3, SIDE, 1)  # a view: nothing is copied
        offsets = torch.randint(0, 2 * by + 1, (2, len(images)), generator=generator)
        down, right = offsets.to(images.device)
        return windows[torch.arange(len(images), device=images.device), :, down, right]

    return augment


def warp(shift: float, rotate: float, scale: float, elastic: float, knots: int = 5) -> Augmentation:
    """Shift, rotate, scale and bend each image; the background fills the border.

    By up to `shift` pixels, `rotate` degrees and the fraction `scale` of each side. It is bent by
    a smooth field of displacements: normal with a deviation of `elastic` pixels at `knots` x
    `knots` points, bicubic between them (P. Simard, D. Steinkraus, J. Platt, Best Practices for
    Convolutional Neural Networks, 2003, use a Gaussian).
    """
    axis = torch.arange(SIDE) - (SIDE - 1) / 2
    down, right = axis.repeat_interleave(SIDE)[None], axis.repeat(SIDE)[None]
    points = torch.eye(knots**2).view(-1, 1, knots, knots)
    smooth = F.interpolate(points, size=(SIDE, SIDE), mode="bicubic", align_corners=True).flatten(1)

    def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        count = len(images)
        # Drawn on the processor: the same numbers wherever the net is trained.
        angle, wide, high, across, along = torch.rand(5, count, 1, generator=generator) * 2 - 1
        bends = torch.randn(2 * count, knots**2, generator=generator) @ smooth * elastic
        angle = angle * math.radians(rotate)
        turned_right = angle.cos() * right - angle.sin() * down
        turned_down = angle.sin() * right + angle.cos() * down
        x = (1 + scale * wide) * turned_right + shift * across + bends[:count]
        y = (1 + scale * high) * turned_down + shift * along + bends[count:]
        padded = F.pad(images, (1, 1, 1, 1), value=images.min().item()).flatten(1)
        middle = (SIDE + 1) / 2  # of the padded image
        points = ((x + middle).to(images.device), (y + middle).to(images.device))
        return bilinear(padded, *points, SIDE + 2).view(-1, 1, SIDE, SIDE)

    return augment


def bilinear(pixels: torch.Tensor, x: torch.Tensor, y: torch.Tensor, width: int) -> torch.Tensor:
    """Return the values at x, y [N, P] of images whose `pixels` [N, H * width] stand row by row.

    By plain look-ups: here they are faster than grid_sample, and the same on every processor.
    """
    x = x.clamp(0, width - 1.001)
    y = y.clamp(0, pixels.shape[1] // width - 1.001)
    left, top = x.floor(), y.floor()
    corner, x, y = (top * width + left).long(), x - left, y - top
    upper = torch.lerp(pixels.gather(1, corner), pixels.gather(1, corner + 1), x)
    corner += width
    lower = torch.lerp(pixels.gather(1, corner), pixels.gather(1, corner + 1), x)
    return torch.lerp(upper, lower, y)
