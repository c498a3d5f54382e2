"""How good the predictions of a model are: accuracy, mistakes, calibration."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.stats import binomtest

from mnist.sources import Source


@dataclass(frozen=True)
class Predictions:
    """Probabilities [N, 10] of the images of one split, with their labels [N], on the CPU."""

    probabilities: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predictions(self) -> torch.Tensor:
        """The most probable class of each image."""
        return self.probabilities.argmax(1)

    @property
    def right(self) -> torch.Tensor:
        """Whether each prediction is right."""
        return self.predictions == self.labels

    @property
    def wrong(self) -> int:
        """The number of mistakes."""
        return int((~self.right).sum())

    @property
    def accuracy(self) -> float:
        """The fraction of right predictions."""
        return self.right.double().mean().item()

    @property
    def loss(self) -> float:
        """The mean cross-entropy in nats."""
        return F.nll_loss(self.probabilities.double().clamp_min(1e-12).log(), self.labels).item()


def verdict(*as_expected: bool, source: Source | None = None) -> str:
    """Return what became of a hypothesis with several parts; with `source`, it is about MNIST."""
    words = ("Refuted", "Partly confirmed", "Confirmed")
    known = not source or source.name == "mnist"
    return words[any(as_expected) + all(as_expected)] if known else "This is not MNIST"


def interval(predictions: Predictions, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval of the accuracy (JASA 22, 1927), which is valid near 1, too."""
    test = binomtest(int(predictions.right.sum()), len(predictions))
    bounds = test.proportion_ci(confidence, method="wilson")
    return float(bounds.low), float(bounds.high)


def confusion(predictions: Predictions) -> torch.Tensor:
    """Return counts int64 [10, 10]: a row for each true class, a column for each predicted one."""
    cells = predictions.labels * 10 + predictions.predictions
    return torch.bincount(cells, minlength=100).view(10, 10)


def confused_pairs(predictions: Predictions) -> list[tuple[int, int, int]]:
    """Return (class, class, mistakes in both directions) of all 45 pairs, most mistakes first."""
    counts = confusion(predictions)
    pairs = [(int(counts[one, other] + counts[other, one]), one, other)
             for one in range(10) for other in range(one + 1, 10)]
    return [(one, other, count) for count, one, other in sorted(pairs, reverse=True)]


def worst_mistakes(predictions: Predictions, count: int) -> torch.Tensor:
    """Return the indices of the mistakes that were made with the most confidence."""
    order = predictions.probabilities.amax(1).argsort(descending=True, stable=True)
    return order[~predictions.right[order]][:count]


def disagreements(models: list[Predictions]) -> torch.Tensor:
    """Return the indices of the images on which models differ, the least decided first."""
    votes = torch.stack([model.predictions for model in models])
    differing = (votes != votes[0]).any(0).nonzero()[:, 0]
    mean = torch.stack([model.probabilities for model in models]).mean(0)
    return differing[mean[differing].amax(1).argsort(stable=True)]


def calibration(predictions: Predictions, groups: int = 10) -> tuple[torch.Tensor, ...]:
    """Group predictions by confidence, in equal ranges (C. Guo et al., arXiv:1706.04599).

    Returns mean confidence, accuracy and count of each group that has any predictions.
    """
    confidence = predictions.probabilities.amax(1).double()
    group = (confidence * groups).long().clamp_max(groups - 1)
    counts = torch.bincount(group, minlength=groups)
    used = counts > 0
    sums = (torch.bincount(group, weights=values, minlength=groups)
            for values in (confidence, predictions.right.double()))
    return *(values[used] / counts[used] for values in sums), counts[used]
