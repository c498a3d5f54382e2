"""Answers of one model on one split: how many are right, which are wrong, and whether the confidence is justified."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.stats import binomtest


@dataclass(frozen=True)
class Evaluation:
    """Probabilities [N, 10] for one split with its labels [N], on the CPU."""

    probabilities: torch.Tensor
    labels: torch.Tensor

    @property
    def predictions(self) -> torch.Tensor:
        return self.probabilities.argmax(1)

    @property
    def right(self) -> torch.Tensor:
        return self.predictions == self.labels

    @property
    def accuracy(self) -> float:
        return self.right.double().mean().item()

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return F.nll_loss(self.probabilities.double().clamp_min(1e-12).log(), self.labels).item()


def interval(evaluation: Evaluation, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for the accuracy (E. Wilson, JASA 22, 1927), which is valid near 1, too."""
    bounds = binomtest(int(evaluation.right.sum()), len(evaluation.labels)).proportion_ci(confidence, method="wilson")
    return float(bounds.low), float(bounds.high)


def confusion(evaluation: Evaluation) -> torch.Tensor:
    """Counts int64 [10, 10]: row, the true digit; column, the predicted one."""
    return torch.bincount(evaluation.labels * 10 + evaluation.predictions, minlength=100).view(10, 10)


def worst_mistakes(evaluation: Evaluation, count: int) -> torch.Tensor:
    """Indices of the wrong answers given with the most confidence."""
    wrong = (~evaluation.right).nonzero()[:, 0]
    return wrong[evaluation.probabilities[wrong].amax(1).argsort(descending=True, stable=True)][:count]


def mistakes_by_confidence(evaluation: Evaluation) -> torch.Tensor:
    """How many of the k most confident answers are wrong, int64 [N], for k from 1 to N."""
    order = evaluation.probabilities.amax(1).argsort(descending=True, stable=True)
    return (~evaluation.right)[order].cumsum(0)


@dataclass(frozen=True)
class Calibration:
    """Answers grouped by confidence: mean confidence, accuracy and number of answers of each group that has any.

    `error` is the expected calibration error over the groups.
    """

    confidence: torch.Tensor
    accuracy: torch.Tensor
    counts: torch.Tensor
    error: float


def calibration(evaluation: Evaluation, groups: int = 10) -> Calibration:
    """Calibration in equally wide groups (C. Guo, G. Pleiss, Y. Sun, K. Weinberger, arXiv:1706.04599)."""
    confidence = evaluation.probabilities.amax(1).double()
    right = evaluation.right.double()
    group = (confidence * groups).long().clamp_max(groups - 1)
    counts = torch.bincount(group, minlength=groups)
    filled = counts > 0
    promised, kept = (
        torch.bincount(group, weights=each, minlength=groups)[filled] / counts[filled] for each in (confidence, right)
    )
    error = ((promised - kept).abs() * counts[filled]).sum() / len(right)
    return Calibration(promised, kept, counts[filled], error.item())
