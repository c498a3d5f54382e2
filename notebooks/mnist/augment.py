"""Training images as the net meets them: as they are, shifted, or moved by an affine map; drawn anew in every epoch.

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


def moved(images: torch.Tensor, shift: float, rotate: float, scale: float) -> Draw:
    """Each image shifted by up to `shift` pixels, turned by up to `rotate` degrees, resized by up to the share `scale`.

    One affine map an image, drawn uniformly (P. Simard, D. Steinkraus, J. Platt, Best practices for convolutional
    neural networks, 2003), with bilinear interpolation; the background fills the rim.
    """
    background, far = images.min(), 2 * shift / images.shape[-1]

    def draw(chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        angle, size, right, down = torch.rand(4, len(chosen), generator=generator) * 2 - 1
        angle, size = angle * math.radians(rotate), 1 + size * scale
        across, along = size * angle.cos(), size * angle.sin()
        rows = [torch.stack([across, -along, far * right], 1), torch.stack([along, across, far * down], 1)]
        grid = F.affine_grid(torch.stack(rows, 1), [len(chosen), *images.shape[1:]], align_corners=False).to(images)
        return F.grid_sample(images[chosen] - background, grid, align_corners=False) + background

    return draw
