"""Which model is better, and could it be chance: intervals, McNemar's test, disagreements."""

import json
from dataclasses import dataclass

import torch
from scipy.stats import binomtest

from digits import paths
from digits.training import Evaluation


@dataclass(frozen=True)
class Candidate:
    """A trained model as the comparison sees it: its name, size, learning curve and validation probabilities."""

    name: str
    parameters: int
    history: list[dict]
    validation: Evaluation


def interval(evaluation: Evaluation, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for the accuracy (E. Wilson, JASA 22, 1927); it stays right near 1, where the normal one does not."""
    right = int((evaluation.predictions == evaluation.labels).sum())
    bounds = binomtest(right, len(evaluation.labels)).proportion_ci(confidence, method="wilson")
    return float(bounds.low), float(bounds.high)


def ranked(candidates: list[Candidate]) -> list[Candidate]:
    """Best first: by validation accuracy, then by loss, then by name."""
    return sorted(candidates, key=lambda each: (-each.validation.accuracy, each.validation.loss, each.name))


@dataclass(frozen=True)
class McNemar:
    """The images that only one of two models gets right, and how likely so uneven a share is if both were equally good."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: Evaluation, second: Evaluation) -> McNemar:
    """McNemar's exact test on the same images (Q. McNemar, Psychometrika 12, 1947); p is 1 when the two never differ."""
    first_right, second_right = (each.predictions == each.labels for each in (first, second))
    only_first, only_second = int((first_right & ~second_right).sum()), int((~first_right & second_right).sum())
    differing = only_first + only_second
    return McNemar(only_first, only_second, float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0)


def disagreements(candidates: list[Candidate]) -> torch.Tensor:
    """Indices of the validation images on which the models do not all say the same, the most divided first."""
    said = torch.stack([each.validation.predictions for each in candidates])
    divided = (said != said[0]).any(0).nonzero()[:, 0]
    mean = torch.stack([each.validation.probabilities for each in candidates]).mean(0)
    return divided[mean[divided].amax(1).argsort(stable=True)]


def confusion(evaluation: Evaluation) -> torch.Tensor:
    """Counts int64 [10, 10]: row, the true digit; column, the predicted one."""
    return torch.bincount(evaluation.labels * 10 + evaluation.predictions, minlength=100).view(10, 10)


def worst_mistakes(evaluation: Evaluation, count: int) -> torch.Tensor:
    """Indices of the wrong answers given with the most confidence."""
    wrong = (evaluation.predictions != evaluation.labels).nonzero()[:, 0]
    return wrong[evaluation.probabilities[wrong].amax(1).argsort(descending=True, stable=True)][:count]


def store_result(result: dict) -> None:
    """Write metrics/compare.json."""
    paths.write("metrics/compare.json", json.dumps(result, indent=2) + "\n")


def store_answers(evaluation: Evaluation) -> None:
    """Write metrics/confusion.csv: true and predicted digit of each image, for DVC's confusion plot."""
    rows = zip(evaluation.labels.tolist(), evaluation.predictions.tolist())
    paths.write("metrics/confusion.csv", "actual,predicted\n" + "".join(f"{actual},{predicted}\n" for actual, predicted in rows))
