"""What the figures say, as sentences and tables computed from the run, so that they always fit it."""

from pathlib import Path

import numpy as np
import torch

from mnist.data import Dataset
from mnist.evaluation import Calibration, Evaluation


def fetched(source: str, tensors: dict[str, torch.Tensor]) -> str:
    """How many images there are, and of what kind."""
    images = tensors["train_images"]
    return (
        f"**{source}**: {len(images):,} images to learn and choose from, {len(tensors['test_images']):,} to test with, "
        f"each {' × '.join(map(str, images.shape[1:]))} in {int(images.max()) + 1} shades of grey."
    )


def balance(labels: torch.Tensor) -> str:
    """The most and the least frequent digit among labels [N]."""
    counts = torch.bincount(labels, minlength=10)
    factor = counts.max() / counts.min()
    verdict = "too little to weight the classes" if factor < 1.5 else "enough to consider weighting the classes"
    return (
        f"In training the most frequent digit is **{counts.argmax()}** with {counts.max():,} images, "
        f"the rarest **{counts.argmin()}** with {counts.min():,}: a factor of {factor:.2f}, {verdict}."
    )


def loaded(dataset: Dataset) -> str:
    """What a model learns from."""
    train, validation = len(dataset.train), len(dataset.validation)
    return f"**{dataset.source}**: {train:,} training images, {validation:,} validation images."


def losses(history: list[dict]) -> str:
    """How far training and validation loss are apart at the end."""
    train, validation = history[-1]["train_loss"], history[-1]["validation_loss"]
    verdict = (
        "it knows its training images better than new ones"
        if validation > train
        else "no sign of overfitting (training images may be moved, or met with dropout; validation images are not)"
    )
    return (
        f"After {len(history)} epochs the training loss is {train:.4f}, the validation loss {validation:.4f}: "
        f"{verdict}."
    )


def reached(validation: Evaluation, floor: float) -> str:
    """The accuracy beside its floor."""
    return f"**Validation accuracy {validation.accuracy:.4f}** (floor {floor}), loss {validation.loss:.4f}."


def calibrated(groups: Calibration) -> str:
    """The expected calibration error, and which way it goes."""
    promised = ((groups.confidence * groups.counts).sum() / groups.counts.sum()).item()
    kept = ((groups.accuracy * groups.counts).sum() / groups.counts.sum()).item()
    direction = "overconfident" if promised > kept else "underconfident"
    verdict = "well calibrated on average" if abs(promised - kept) < 0.005 else direction
    return (
        f"Expected calibration error **{groups.error:.4f}**: its mean confidence is {promised:.1%}, and {kept:.1%} of "
        f"its answers are right, so it is {verdict}."
    )


def refused(mistakes: torch.Tensor, share: float = 0.05) -> str:
    """What is gained if a person gives the `share` of answers with the least confidence; `mistakes`: see evaluation."""
    total, left = int(mistakes[-1]), int(mistakes[max(0, round(len(mistakes) * (1 - share)) - 1)])
    if not total:
        return "There is no mistake to find."
    return (
        f"If the {share:.0%} of the images with the least confident answers go to a person, so do "
        f"**{total - left} of {total}** mistakes; {left} remain."
    )


def more_images(rows: list[dict]) -> str:
    """What the last doubling of the training images brought."""
    (few, before), (all_, after) = ((row["images"], 1 - row["validation_accuracy"]) for row in rows[-2:])
    saved = 1 - after / before if before else 0.0
    verdict = "more images would help" if saved > 0.1 else "more images alone hardly help a training this short"
    return (
        f"From {few:,} to {all_:,} images the error goes from {before:.2%} to {after:.2%} ({-saved:+.0%}): {verdict}."
    )


def titles(evaluation: Evaluation, chosen: torch.Tensor) -> list[str]:
    """`true → predicted` for the images `chosen`."""
    pairs = zip(evaluation.labels[chosen].tolist(), evaluation.predictions[chosen].tolist())
    return [f"{true} → {said}" for true, said in pairs]


def portable(path: Path, validation: Evaluation, strangeness: np.ndarray, limit: float) -> str:
    """What the ONNX file at `path` holds, and that it answers as the model does; see the assertions above it."""
    answered = float((strangeness <= limit).mean())
    return (
        f"`{path.name}`, {path.stat().st_size / 1000:,.0f} kB: the same answer for all {len(validation.labels):,} "
        f"validation images, and no probability more than 0.00001 away. {answered:.1%} of them are answered; "
        "the others are too strange."
    )
