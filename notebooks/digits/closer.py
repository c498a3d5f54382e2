"""A closer look at one model: is its confidence worth something, and would more images help?"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from digits import progress, training
from digits.augment import Draw, unmoved
from digits.data import Digits, Split
from digits.training import Evaluation


@dataclass(frozen=True)
class Calibration:
    """Answers grouped by confidence: mean confidence, share of right answers and number of answers of each group that has any; the expected error."""

    confidence: torch.Tensor
    accuracy: torch.Tensor
    counts: torch.Tensor
    error: float


def calibration(evaluation: Evaluation, groups: int = 10) -> Calibration:
    """Ten equally wide groups, and the expected calibration error over them (C. Guo, G. Pleiss, Y. Sun, K. Weinberger, arXiv:1706.04599)."""
    confidence = evaluation.probabilities.amax(1).double()
    right = (evaluation.predictions == evaluation.labels).double()
    group = (confidence * groups).long().clamp_max(groups - 1)
    counts = torch.bincount(group, minlength=groups)
    filled = counts > 0
    sure, kept = (torch.bincount(group, weights=each, minlength=groups)[filled] / counts[filled] for each in (confidence, right))
    error = ((sure - kept).abs() * counts[filled]).sum() / len(right)
    return Calibration(sure, kept, counts[filled], error.item())


def mistakes_by_confidence(evaluation: Evaluation) -> torch.Tensor:
    """How many of the k surest answers are wrong, int64 [N], for k from 1 to N."""
    order = evaluation.probabilities.amax(1).argsort(descending=True, stable=True)
    return (evaluation.predictions != evaluation.labels)[order].cumsum(0)


def fresh(net: nn.Module, seed: int) -> nn.Module:
    """`net` before any training, its start weights drawn by `seed`."""
    torch.manual_seed(seed)
    untrained = copy.deepcopy(net)
    for layer in untrained.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return untrained


def by_size(
    net: nn.Module, digits: Digits, *, steps: int, batch: int, lr: float, seed: int, weight_decay: float = 0.0,
    draw: Callable[[torch.Tensor], Draw] = unmoved, parts: tuple[int, ...] = (8, 4, 2, 1),
) -> list[dict]:
    """Train `net` from new, for about `steps` steps each, on an eighth, a quarter ... of the training images.

    An eighth is seen eight times as often, so that all parts have as many steps. One row
    a part: its images and the validation_accuracy reached. The parts are drawn by `seed`, each inside the next.
    """
    order = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(seed)).to(digits.train.labels.device)
    rows, epochs = [], max(1, round(steps / max(1, len(order) // batch)))
    with progress.hushed():
        for part in parts:
            chosen = order[: len(order) // part]
            some = Split(digits.train.images[chosen], digits.train.labels[chosen])
            history = training.fit(
                fresh(net, seed), some, digits.validation,
                epochs=epochs * part, batch=batch, lr=lr, seed=seed, weight_decay=weight_decay, draw=draw(some.images),
            )
            rows.append({"images": len(some), "validation_accuracy": history[-1]["validation_accuracy"]})
    return rows
