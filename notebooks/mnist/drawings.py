"""What people drew and said what it is: from the server's log, cleaned, to learn from; kept in data/drawn."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from mnist import data
from mnist.data import Dataset
from nbproof.notebook import source, write
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest, root

FOLDER, VERSION = "data/drawn", "data/drawn.json"
VALIDATION = 5  # one of so many drawings, chosen by its own pixels, is for validation, in this harvest and in any other


@dataclass(frozen=True)
class Drawings:
    """Images uint8 [N, 28, 28] with labels int64 [N], each image once."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def split(self) -> dict[str, "Drawings"]:
        """The drawings to learn from and those for validation. Which is which, an image's own pixels say."""
        keys = [int(hashlib.sha256(image.numpy().tobytes()).hexdigest(), 16) for image in self.images]
        chosen = torch.tensor([key % VALIDATION == 0 for key in keys], dtype=torch.bool)
        return {"train": Drawings(self.images[~chosen], self.labels[~chosen]),
                "validation": Drawings(self.images[chosen], self.labels[chosen])}


EMPTY = Drawings(torch.zeros(0, 28, 28, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))


@dataclass(frozen=True)
class Harvest:
    """All drawings that are kept, those among them that are new, and how many of the log were left out, by reason."""

    kept: Drawings
    new: Drawings
    left_out: Counter
    odd: Drawings

    def __str__(self) -> str:
        return f"{len(self.new)} new drawings, {len(self.kept)} in all"


def stored() -> Drawings:
    """The drawings in data/drawn, none where there are none yet; UserError where they are of another version."""
    known = json.loads(source(VERSION).read_text(encoding="utf-8"))
    if not known["cases"]:
        return EMPTY
    folder = root() / FOLDER
    if not folder.is_dir() or digest(folder) != known["digest"]:
        raise UserError(f"{FOLDER} does not hold the {known['cases']} drawings that {VERSION} names: bring them by "
                      f"`dvc pull {FOLDER}.dvc` (or dvc checkout).")
    parts = [data.restore(f"{FOLDER}/{name}.safetensors")[0] for name in ("train", "validation")]
    return Drawings(*(torch.cat([part[key] for part in parts]) for key in ("images", "labels")))


def gathered(log: dict, dataset: Dataset, strangest: float) -> Harvest:
    """The labelled images of the log, and those that are kept already, without what teaches nothing or something wrong.

    Left out: what has no image or no digit as its label, what is empty, what is stranger than `strangest`, what is an
    image of the data set itself, what was drawn twice, and what people gave different labels.
    """
    known, left_out, odd = stored(), Counter(), []
    seen = {image.numpy().tobytes(): int(label) for image, label in zip(known.images, known.labels)}
    own = {image.numpy().tobytes() for split in (dataset.train, dataset.validation)
           for image in pixels(split.images, dataset)} - seen.keys()  # of which some are learned from already
    found: dict[bytes, set[int]] = {}
    for given, label, strangeness in zip(log["input"], log["label"], log["strangeness"]):
        if label is None:
            continue
        image = None if given is None else pixels(torch.from_numpy(given.copy()).view(1, 1, 28, 28), dataset)[0]
        if reason := _unfit(image, label, strangeness, strangest, own):
            left_out[reason] += 1
            if image is not None:
                odd.append(image)
            continue
        key = image.numpy().tobytes()
        left_out["drawn twice, or harvested before"] += key in found or seen.get(key) == int(label)
        found.setdefault(key, set()).add(int(label))
    agreed = {key: labels.pop() for key, labels in found.items() if len(labels) == 1}
    left_out["two labels for one image"] += len(found) - len(agreed)
    new = {key: label for key, label in agreed.items() if seen.get(key) != label}
    return Harvest(_as_drawings(seen | new), _as_drawings(new), +left_out,
                   Drawings(torch.stack(odd), torch.zeros(len(odd))) if odd else EMPTY)


def _unfit(image: torch.Tensor | None, label: str, strangeness: float, strangest: float, own: set[bytes]) -> str:
    """Why an image is not kept; empty if it is."""
    if image is None:
        return "no image in the log"
    if label not in map(str, range(10)):
        return "the label is no digit"
    if int(image.max()) - int(image.min()) < 50 or not 10 <= int((image > 50).sum()) <= 500:
        return "next to nothing is drawn, or next to everything"
    if image.numpy().tobytes() in own:
        return "an image of the data set itself"
    return "too strange to be any digit" if strangeness > strangest else ""


def pixels(images: torch.Tensor, dataset: Dataset) -> torch.Tensor:
    """Normalised images [N, 1, 28, 28] as bytes [N, 28, 28]."""
    ink = images[:, 0].cpu().double() * dataset.deviation + dataset.mean
    return ink.nan_to_num().mul(255).round().clamp(0, 255).to(torch.uint8)


def _as_drawings(labels: dict[bytes, int]) -> Drawings:
    if not labels:
        return EMPTY
    order = sorted(labels)  # by pixels: the same drawings are the same bytes, in whatever order they came
    images = np.stack([np.frombuffer(key, dtype=np.uint8).reshape(28, 28) for key in order])
    return Drawings(torch.from_numpy(images.copy()), torch.tensor([labels[key] for key in order]))


def store(harvest: Harvest) -> None:
    """Write data/drawn, and reports/harvest.json for whoever started the notebook."""
    for name, part in harvest.kept.split().items():
        data.store(f"{FOLDER}/{name}.safetensors", {"images": part.images, "labels": part.labels})
    write("reports/harvest.json", json.dumps({"cases": len(harvest.kept), "new": len(harvest.new)}) + "\n")


def left_out(harvest: Harvest) -> str:
    """What was left out and why, as a Markdown table."""
    lines = [f"**{harvest}.**", "", "| left out | images |", "|:--|--:|"]
    return "\n".join([*lines, *(f"| {reason} | {count:,} |" for reason, count in sorted(harvest.left_out.items()))])


def added(tensors: dict[str, torch.Tensor], drawings: Drawings, test_images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors of data/train.safetensors with drawings to learn from, and a validation set of drawings beside its
    own, which stays as it is. A drawing that is one of the `test_images` uint8 [N, 28, 28] is left out."""
    tested = {image.numpy().tobytes() for image in test_images}
    own = torch.tensor([image.numpy().tobytes() not in tested for image in drawings.images], dtype=torch.bool)
    parts = Drawings(drawings.images[own], drawings.labels[own]).split()
    return tensors | {
        "train_images": torch.cat([tensors["train_images"], parts["train"].images]),
        "train_labels": torch.cat([tensors["train_labels"], parts["train"].labels]),
        "drawn_images": parts["validation"].images, "drawn_labels": parts["validation"].labels,
    }
