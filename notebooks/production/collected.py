"""Images that people drew and labelled: from the server's log, cleaned, for data/collected."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from mnist import data
from mnist.data import Dataset, Split
from nbproof.notebook import write

VALIDATION = 5  # one in so many images is for validation; its own pixels decide
LEAST_INK, MOST_INK = 10, 500  # pixels brighter than a fifth, of 784
Labels = dict[bytes, int]  # the label of each image, by its 784 pixels


@dataclass(frozen=True)
class Harvest:
    """All images with their labels, the new ones among them, and what was left out: the reasons,
    and the images uint8 [N, 1, 28, 28] that had a label."""

    images: Labels
    new: Labels
    reasons: Counter
    rejected: torch.Tensor

    def table(self) -> str:
        """Return what was left out and why, as a Markdown table."""
        rows = [f"| {reason} | {count:,} |" for reason, count in sorted(self.reasons.items())]
        return "\n".join(["| left out | images |", "|:--|--:|", *rows])

    def conclusion(self) -> str:
        """Return how many images there are now, as a sentence."""
        validation = sum(map(is_validation, self.images))
        return (f"**{len(self.new):,} new drawings, {len(self.images):,} in all:** "
                f"{len(self.images) - validation:,} for training, {validation:,} for validation.")


def harvest(log: dict, dataset: Dataset, max_score: float) -> Harvest:
    """Return the labelled images of the log and those that data/collected has already.

    Left out is what has no image or no digit as its label, what is nearly blank or nearly full, an
    OOD score above `max_score`, images of the data set itself, duplicates, and images that people
    labelled differently.
    """
    known = stored()
    splits = (dataset.train, dataset.validation)
    own = {bytes(image) for split in splits for image in pixels(split.images)} - known.keys()
    labels, reasons, rejected = {}, Counter(), []
    for image, label, score in zip(log["input"], log["label"], log["strangeness"]):
        if label is None:
            continue
        image = None if image is None else as_bytes(image, dataset.train)
        if reason := unfit(image, label in dataset.source.classes, score > max_score, own):
            reasons[reason] += 1
            rejected += [] if image is None else [image]
            continue
        key = image.tobytes()
        number = dataset.source.classes.index(label)
        reasons["drawn twice, or harvested before"] += key in labels or known.get(key) == number
        labels.setdefault(key, set()).add(number)
    agreed = {key: values.pop() for key, values in labels.items() if len(values) == 1}
    reasons["two labels for one image"] += len(labels) - len(agreed)
    new = {key: label for key, label in agreed.items() if known.get(key) != label}
    rejected = np.array(rejected, np.uint8).reshape(-1, 1, 28, 28)
    return Harvest(known | new, new, +reasons, torch.from_numpy(rejected))


def unfit(image: np.ndarray | None, is_class: bool, is_ood: bool, own: set[bytes]) -> str:
    """Return why an image uint8 [28, 28] is left out; empty if it is not."""
    if image is None:
        return "no image in the log"
    if not is_class:
        return "the label is no class of the data set"
    if not LEAST_INK <= int((image > 50).sum()) <= MOST_INK:
        return "nearly blank, or nearly full"
    if image.tobytes() in own:
        return "an image of the data set itself"
    return "out of distribution" if is_ood else ""


def as_bytes(image: np.ndarray, like: Split) -> np.ndarray:
    """Return a logged image, normalised as those of `like`, as bytes [28, 28]."""
    ink = image.astype(np.float64) * like.deviation + like.mean
    return np.nan_to_num(ink * 255).round().clip(0, 255).astype(np.uint8).reshape(28, 28)


def pixels(images: torch.Tensor) -> np.ndarray:
    """Return images uint8 [N, ..., 28, 28] as an array [N, 784]."""
    return images.flatten(1).numpy() if len(images) else np.zeros((0, 784), np.uint8)


def stored() -> Labels:
    """Return the images in data/collected with their labels."""
    splits = data.collected().values()
    return {bytes(image): int(label) for images, labels in splits
            for image, label in zip(pixels(images), labels)}


def tensors(labels: Labels) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images uint8 [N, 28, 28] and labels int64 [N], in the order of their pixels.

    The same images make the same bytes, in whatever order people drew them.
    """
    order = sorted(labels)
    images = np.frombuffer(b"".join(order), np.uint8).reshape(-1, 28, 28)
    return torch.from_numpy(images.copy()), torch.tensor([labels[key] for key in order]).long()


def is_validation(image: bytes) -> bool:
    """Return whether an image is for validation: the same in this harvest and in each later one."""
    return int(hashlib.sha256(image).hexdigest(), 16) % VALIDATION == 0


def store(result: Harvest) -> None:
    """Write data/collected, and reports/harvest.json for `nbproof harvest`."""
    for name in ("train", "validation"):
        part = {key: label for key, label in result.images.items()
                if is_validation(key) == (name == "validation")}
        images, labels = tensors(part)
        data.store(f"data/collected/{name}.safetensors", {"images": images, "labels": labels})
    facts = {"cases": len(result.images), "new": len(result.new)}
    write("reports/harvest.json", json.dumps(facts) + "\n")
