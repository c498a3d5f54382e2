"""Augmentations change what they should, and nothing else."""

import torch

from mnist import augment


def test_shifts_and_warps(small):
    generator = torch.Generator().manual_seed(0)
    image = small.train.normalised(slice(4, 5))
    many = image.expand(200, 1, 28, 28)
    assert torch.equal(augment.shift(0)(many, generator), many)
    assert torch.equal(augment.warp(0, 0, 0, 0)(many, generator), many)
    shifted, brightest = augment.shift(1)(many, generator), image.argmax().item()
    expected = {brightest + 28 * down + right for down in (-1, 0, 1) for right in (-1, 0, 1)}
    assert {each.argmax().item() for each in shifted} == expected
    assert shifted.min() == image.min()
    for moves in ((2, 0, 0, 0), (0, 20, 0, 0), (0, 0, 0.2, 0), (0, 0, 0, 1), (28, 360, 2, 20)):
        warped = augment.warp(*moves)(many, generator)
        assert warped.shape == many.shape and warped.std(0).max() > 0.1, moves
        assert image.min() - 1e-5 <= warped.min() and warped.max() <= image.max() + 1e-5, moves
