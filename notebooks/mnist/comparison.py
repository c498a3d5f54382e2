"""Which model is the best, and could its lead be chance: the ranking, McNemar's test, disagreements."""

import json
from dataclasses import dataclass

import torch

from mnist import data, judge
from mnist.evaluation import Evaluation
from nbproof.notebook import write


@dataclass(frozen=True)
class Candidate:
    """A trained model as the comparison sees it: its name, size, learning curve and validation probabilities."""

    name: str
    parameters: int
    history: list[dict]
    validation: Evaluation


def candidate(name: str) -> Candidate:
    """The stored model `name`, from models/NAME.safetensors."""
    tensors, facts = data.restore(f"models/{name}.safetensors")
    answers = Evaluation(tensors["probabilities"], tensors["labels"])
    return Candidate(name, facts["parameters"], facts["history"], answers)


def ranked(candidates: list[Candidate]) -> list[Candidate]:
    """Best first: by validation accuracy, then by loss, then by name."""
    return sorted(candidates, key=lambda each: (-each.validation.accuracy, each.validation.loss, each.name))


def mcnemar(first: Evaluation, second: Evaluation) -> judge.McNemar:
    """McNemar's exact test of two models on the same images."""
    return judge.mcnemar(first.right.tolist(), second.right.tolist())


def disagreements(candidates: list[Candidate]) -> torch.Tensor:
    """Indices of the validation images on which the models do not all say the same, the most divided first."""
    said = torch.stack([each.validation.predictions for each in candidates])
    divided = (said != said[0]).any(0).nonzero()[:, 0]
    mean = torch.stack([each.validation.probabilities for each in candidates]).mean(0)
    return divided[mean[divided].amax(1).argsort(stable=True)]


def store_result(result: dict) -> None:
    """Write metrics/compare.json."""
    write("metrics/compare.json", json.dumps(result, indent=2) + "\n")
