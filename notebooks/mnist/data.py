"""The data set: split once, stored once, kept as bytes and normalised by the batch."""

import json
from dataclasses import dataclass

import torch
from safetensors import safe_open
from safetensors.torch import save

from mnist.sources import SOURCES, Source
from nbproof.notebook import source, write
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest, root

TRAIN, TEST = "data/train.safetensors", "data/test.safetensors"
COLLECTED = "data/collected"  # labelled images of one's own, and their version, COLLECTED.json


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, 1, 28, 28] and labels int64 [N].

    `mean` and `deviation` are those of the training pixels, on a scale from 0 to 1.
    """

    images: torch.Tensor
    labels: torch.Tensor
    mean: float
    deviation: float

    def __len__(self) -> int:
        return len(self.labels)

    def normalised(self, chosen: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """Return the images `chosen` as float32: mean 0, deviation 1 over the training images."""
        pixels = self.images[chosen].float()
        return pixels.div_(255).sub_(self.mean).div_(self.deviation)

    def subset(self, chosen: torch.Tensor) -> "Split":
        """Return a split that has the images `chosen` only."""
        return Split(self.images[chosen], self.labels[chosen], self.mean, self.deviation)


@dataclass(frozen=True)
class Dataset:
    """What a model learns from and is selected by; `collected` is a second validation set."""

    source: Source
    digest: str
    train: Split
    validation: Split
    collected: Split | None = None

    def __str__(self) -> str:
        counts = f"{len(self.train):,} training and {len(self.validation):,} validation images"
        return f"**{self.source.name}**: {counts}."


def stratified(labels: torch.Tensor, fraction: float, seed: int
               ) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the indices for training and for validation: `fraction` of each class, at random.

    The counts are rounded by the largest remainders, so that the total is exact.
    """
    generator = torch.Generator().manual_seed(seed)
    validation = torch.zeros(len(labels), dtype=torch.bool)
    quotas = labels.unique(return_counts=True)[1].double() * fraction
    counts = quotas.floor().long()
    largest = (quotas - counts).argsort(descending=True, stable=True)
    counts[largest[: round(fraction * len(labels)) - int(counts.sum())]] += 1
    for label, count in zip(labels.unique(), counts):
        members = (labels == label).nonzero()[:, 0]
        validation[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return (~validation).nonzero()[:, 0], validation.nonzero()[:, 0]


def with_collected(tensors: dict[str, torch.Tensor], test: torch.Tensor) -> dict[str, torch.Tensor]:
    """Add collected images to the tensors of TRAIN, and as a validation set of their own.

    An image that is one of `test` uint8 [N, 28, 28] is left out.
    """
    tested, added = {image.numpy().tobytes() for image in test}, dict(tensors)
    for part, (images, labels) in collected().items():
        new = torch.tensor([image.numpy().tobytes() not in tested for image in images]).bool()
        for kind, values in (("images", images[new]), ("labels", labels[new])):
            if part == "train":
                added[f"train_{kind}"] = torch.cat([tensors[f"train_{kind}"], values])
            else:
                added[f"collected_{kind}"] = values
    return added


def collected() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return `train` and `validation` of data/collected: uint8 [N, 28, 28] and int64 [N].

    Empty if there are none yet. UserError if they are not those that data/collected.json names.
    """
    version = json.loads(source(f"{COLLECTED}.json").read_text(encoding="utf-8"))
    none = torch.zeros(0, 28, 28, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)
    empty = {"train": none, "validation": none}
    if not version["cases"]:
        return empty
    folder = root() / COLLECTED
    if not folder.is_dir() or digest(folder) != version["digest"]:
        raise UserError(f"{COLLECTED} does not hold the {version['cases']} images that "
                        f"{COLLECTED}.json names: `dvc pull {COLLECTED}.dvc` brings them.")
    stored = {part: restore(f"{COLLECTED}/{part}.safetensors")[0] for part in empty}
    return {part: (tensors["images"], tensors["labels"]) for part, tensors in stored.items()}


def store(name: str, tensors: dict[str, torch.Tensor], **facts) -> None:
    """Write tensors, and facts as JSON, to a safetensors file: the same bytes each time."""
    whole = {key: tensor.contiguous() for key, tensor in tensors.items()}
    # One entry of metadata: several are written in an order that varies.
    write(name, save(whole, metadata={"facts": json.dumps(facts, sort_keys=True)}))


def restore(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Return the tensors and the facts in a file that `store` wrote."""
    with safe_open(source(name), framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
        return {key: file.get_tensor(key) for key in file.keys()}, facts


def _splits(name: str, device: torch.device | str) -> tuple[dict[str, Split], dict]:
    """Return the splits in a stored file, on `device`, and the file's facts."""
    tensors, facts = restore(name)
    splits = {}
    for key in (key.removesuffix("_labels") for key in tensors if key.endswith("_labels")):
        images, labels = tensors[f"{key}_images"][:, None], tensors[f"{key}_labels"]
        splits[key] = Split(images.to(device), labels.to(device), facts["mean"], facts["deviation"])
    return splits, facts


def load(device: torch.device | str = "cpu") -> Dataset:
    """Return the training and the validation images."""
    splits, facts = _splits(TRAIN, device)
    return Dataset(SOURCES[facts["source"]], digest(source(TRAIN)), **splits)


def load_test(device: torch.device | str = "cpu") -> Split:
    """Return the test images. Only the last cells of the comparison do this."""
    return _splits(TEST, device)[0]["test"]
