"""The split, what is stored, and images of a person's own."""

import json

import pytest
import torch

from mnist import data
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest


@pytest.mark.parametrize("fraction", [0.1, 0.16666667, 0.5])
def test_split_is_exact_disjoint_and_stratified(fraction):
    labels = torch.randint(0, 10, (5000,), generator=torch.Generator().manual_seed(1))
    train, held_out = data.stratified(labels, fraction, seed=3)
    assert len(held_out) == round(fraction * 5000)
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(5000))
    difference = torch.bincount(labels[held_out]) - fraction * torch.bincount(labels)
    assert (difference.abs() < 1).all()
    assert torch.equal(held_out, data.stratified(labels, fraction, seed=3)[1])
    assert not torch.equal(held_out, data.stratified(labels, fraction, seed=4)[1])


def test_store_and_restore(project):
    tensors = {"b": torch.arange(6).view(2, 3).t(), "a": torch.ones(2, dtype=torch.uint8)}
    data.store("data/x.safetensors", tensors, source="digits", mean=0.5)
    first = (project / "data" / "x.safetensors").read_bytes()
    data.store("data/x.safetensors", tensors, mean=0.5, source="digits")
    assert first == (project / "data" / "x.safetensors").read_bytes()
    restored, facts = data.restore("data/x.safetensors")
    assert facts == {"source": "digits", "mean": 0.5}
    assert all(torch.equal(restored[key], tensors[key]) for key in tensors)


def numbered(*numbers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that are their number everywhere, with a label each."""
    images = torch.tensor(numbers, dtype=torch.uint8).view(-1, 1, 1).expand(-1, 28, 28)
    return images.contiguous(), torch.tensor(numbers) % 10


def test_collected_images_are_learned_from_and_tested_images_are_not(project):
    (project / "data").mkdir()
    for name, numbers in {"train": (50, 51, 9), "validation": (60,)}.items():
        images, labels = numbered(*numbers)
        data.store(f"{data.COLLECTED}/{name}.safetensors", {"images": images, "labels": labels})
    version = {"cases": 4, "digest": digest(project / data.COLLECTED)}
    (project / f"{data.COLLECTED}.json").write_text(json.dumps(version))
    tensors = {f"{split}_{kind}": value for split, numbers in {"train": (1, 2), "validation": (3,)}
               .items() for kind, value in zip(("images", "labels"), numbered(*numbers))}
    facts = {"source": "digits", "mean": 0.5, "deviation": 0.25}
    data.store(data.TRAIN, data.with_collected(tensors, numbered(9, 10)[0]), **facts)
    dataset = data.load()
    assert dataset.train.labels.tolist() == [1, 2, 0, 1] and len(dataset.validation) == 1
    assert dataset.collected.images.max() == 60 and str(dataset).startswith("**digits**: 4 train")
    assert dataset.train.normalised(torch.tensor([2])).mean().item() == pytest.approx(
        (50 / 255 - 0.5) / 0.25)

    (project / data.COLLECTED / "train.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="does not hold the 4 images"):
        data.collected()
    (project / f"{data.COLLECTED}.json").write_text('{"cases": 0}')
    assert len(data.collected()["train"][1]) == 0
