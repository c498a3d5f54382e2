"""Images worth a look: the first of each digit, and those unlike their own class."""

import torch


def first_of_each(labels: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of the first `count` images of each digit, digit by digit."""
    return torch.cat([(labels == digit).nonzero()[:count, 0] for digit in range(10)])


def far_from_class_mean(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Indices of all images [N, H, W], the farthest from the mean of their class (Euclidean) first."""
    means = torch.stack([images[labels == digit].mean(0) for digit in range(10)])
    return (images - means[labels]).flatten(1).norm(dim=1).argsort(descending=True, stable=True)
