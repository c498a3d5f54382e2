"""The data set as tensors: split once, stored once, and held in memory as a whole, because slicing is fast."""

import json
from dataclasses import dataclass

import torch
from safetensors import safe_open
from safetensors.torch import save

from nbproof.notebook import source, write
from nbproof.notebook.files import digest

TRAIN, TEST = "data/train.safetensors", "data/test.safetensors"


@dataclass(frozen=True)
class Split:
    """Images float32 [N, 1, 28, 28], zero mean and unit deviation over the training images; labels int64 [N]."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """What a model learns from and is judged on.

    `source` is the name of the source, `digest` that of the stored bytes; `mean` and `deviation` are those of the
    pixels (0 to 1) by which the images were normalised. `drawn` is the validation set of what people drew, if any.
    """

    source: str
    digest: str
    train: Split
    validation: Split
    mean: float = 0.0
    deviation: float = 1.0
    drawn: Split | None = None


def stratified(labels: torch.Tensor, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of training and validation images: `share` of each class goes to validation, drawn by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    validation = torch.zeros(len(labels), dtype=torch.bool)
    wanted = labels.unique(return_counts=True)[1].double() * share
    counts = wanted.floor().long()
    most_cut = (wanted - counts).argsort(descending=True, stable=True)
    counts[most_cut[: round(share * len(labels)) - int(counts.sum())]] += 1  # largest remainders: the total is exact
    for label, count in zip(labels.unique(), counts):
        members = (labels == label).nonzero()[:, 0]
        drawn = torch.randperm(len(members), generator=generator)[:count]
        validation[members[drawn]] = True
    return (~validation).nonzero()[:, 0], validation.nonzero()[:, 0]


def store(name: str, tensors: dict[str, torch.Tensor], **facts) -> None:
    """Write tensors and JSON facts as one safetensors file (one metadata entry: the order of several would vary)."""
    whole = {key: tensor.contiguous() for key, tensor in tensors.items()}
    write(name, save(whole, metadata={"facts": json.dumps(facts, sort_keys=True)}))


def restore(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors and facts that `store` wrote."""
    with safe_open(source(name), framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["facts"])


def _split(tensors: dict[str, torch.Tensor], name: str, facts: dict, device: torch.device) -> Split:
    images = tensors[f"{name}_images"][:, None].to(device).float()
    return Split(images.div_(255).sub_(facts["mean"]).div_(facts["deviation"]), tensors[f"{name}_labels"].to(device))


def load(device: torch.device | str = "cpu") -> Dataset:
    """Training and validation images, normalised, on `device`."""
    tensors, facts = restore(TRAIN)
    names = ("train", "validation", *(["drawn"] if "drawn_labels" in tensors else []))
    train, validation, *drawn = (_split(tensors, name, facts, torch.device(device)) for name in names)
    return Dataset(facts["source"], digest(source(TRAIN)), train, validation, facts["mean"], facts["deviation"], *drawn)


def load_test(device: torch.device | str = "cpu") -> Split:
    """The test images, normalised as the training images are; for the comparison's last cell and nothing else."""
    tensors, facts = restore(TEST)
    return _split(tensors, "test", facts, torch.device(device))
