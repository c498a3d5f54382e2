"""Digits as a bad camera or a slanted hand gives them, to try whether the watch finds them.

The kinds are those of MNIST-C (N. Mu, J. Gilmer, MNIST-C: A Robustness Benchmark for Computer Vision,
https://arxiv.org/abs/1906.02337), made anew here. Each takes and gives ink from 0 to 1, float32 [N, 1, 28, 28].
"""

import math

import torch
import torch.nn.functional as F


def sheared(digits: torch.Tensor, generator: torch.Generator, by: float = 0.6) -> torch.Tensor:
    """Each row moved sideways, by up to `by` of its distance from the middle; the direction is drawn."""
    sign = torch.randint(2, (len(digits),), generator=generator).float() * 2 - 1
    turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).repeat(len(digits), 1, 1)
    turn[:, 0, 1] = by * sign
    return F.grid_sample(digits, F.affine_grid(turn, list(digits.shape), align_corners=False), align_corners=False)


def blurred(digits: torch.Tensor, generator: torch.Generator, by: float = 1.5) -> torch.Tensor:
    """A Gaussian of the deviation `by` pixels over the image."""
    places = torch.arange(-6, 7).float()
    weights = torch.exp(-(places**2) / (2 * by**2))
    weights = (weights / weights.sum()).view(1, 1, 1, -1)
    return F.conv2d(F.conv2d(digits, weights, padding=(0, 6)), weights.transpose(2, 3), padding=(6, 0))


def noisy(digits: torch.Tensor, generator: torch.Generator, by: float = 0.25) -> torch.Tensor:
    """Normal noise of the deviation `by` on each pixel."""
    return (digits + by * torch.randn(digits.shape, generator=generator)).clamp(0, 1)


def inverted(digits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Dark ink on bright paper."""
    return 1 - digits


def dotted(digits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A dotted line through the image, at a drawn height and slope."""
    side = digits.shape[-1]
    height, angle = torch.rand(2, len(digits), 1, generator=generator)
    across = torch.arange(0, side, 2).expand(len(digits), -1)
    down = (height * 0.6 + 0.2) * side + (across - side / 2) * ((angle - 0.5) * math.pi / 3).tan()
    lined = digits.clone()
    lined[torch.arange(len(digits))[:, None], 0, down.round().long().clamp(0, side - 1), across] = 1
    return lined


KINDS = {"sheared": sheared, "blurred": blurred, "noisy": noisy, "inverted": inverted, "dotted line": dotted}
