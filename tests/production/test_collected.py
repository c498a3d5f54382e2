"""Drawings with labels: cleaned, stored once, and in the same split in each harvest."""

import json
import shutil

import logs
import numpy as np
import pytest
import torch

from mnist import data
from nbproof.notebook import served
from nbproof.notebook.files import digest
from production import collected


def digit(number: int) -> torch.Tensor:
    """An image uint8 [28, 28] for each number, with as much ink as a digit."""
    image = torch.zeros(28, 28, dtype=torch.uint8)
    image[5:22, 8 + number % 8 : 12 + number % 8] = 200
    image[number // 8, 0] = 90
    return image


class Model:
    """Predicts 3; the OOD score is the grey of the lower right pixel, in steps of ten."""

    threshold = 3.0

    def __call__(self, images: np.ndarray) -> tuple:
        scores = (images[:, 0, -1, -1] * 0.5 + 0.25) * 25.5
        return np.tile(np.eye(10)[3], (len(images), 1)), np.zeros((len(images), 4)), scores


@pytest.fixture
def own(dataset, project) -> data.Dataset:
    """A data set of four images, and no collected ones."""
    (project / "data").mkdir()
    (project / "data" / "collected.json").write_text('{"cases": 0}\n')
    images = torch.stack([digit(number) for number in range(200, 204)])[:, None]
    split = data.Split(images, torch.arange(4), 0.25, 0.5)
    return data.Dataset(dataset.source, "0" * 64, split, split)


def harvest(own, project, images: list[torch.Tensor], labels: list) -> collected.Harvest:
    """The harvest of a log with these images and labels."""
    shutil.rmtree(project / "served", ignore_errors=True)
    normalised = data.Split(torch.stack(images)[:, None], None, 0.25, 0.5).normalised().numpy()
    logs.write(project, Model(), normalised, {n: x for n, x in enumerate(labels) if x is not None})
    return collected.harvest(served.served(features=False), own, max_score=6.0)


def keep(result: collected.Harvest, project) -> str:
    """Do what `nbproof harvest` does with a harvest; the digest of data/collected."""
    collected.store(result)
    version = {"cases": len(result.images), "digest": digest(project / "data" / "collected")}
    (project / "data" / "collected.json").write_text(json.dumps(version))
    return version["digest"]


def test_nonsense_and_duplicates_are_left_out(own, project):
    far = digit(6)
    far[-1, -1] = 255
    rejected = [torch.zeros(28, 28).byte(), torch.full((28, 28), 255).byte(), far, digit(201)]
    images = [digit(0), digit(1), digit(1), digit(2), digit(2), digit(3), digit(4), *rejected]
    labels = ["0", "1", "1", "2", "7", None, "eleven", "3", "3", "3", "1"]
    result = harvest(own, project, images, labels)
    expected = {digit(number).numpy().tobytes(): number for number in (0, 1)}
    assert result.new == result.images == expected and len(result.rejected) == 5
    assert result.reasons == {
        "drawn twice, or harvested before": 2, "two labels for one image": 1,
        "the label is no class of the data set": 1, "nearly blank, or nearly full": 2,
        "out of distribution": 1, "an image of the data set itself": 1}
    assert "| two labels for one image | 1 |" in result.table()


def test_a_second_harvest_adds_to_the_first_and_corrects_it(own, project):
    keep(harvest(own, project, [digit(0), digit(1)], ["0", "1"]), project)
    again = harvest(own, project, [digit(0), digit(2)], ["0", "2"])
    assert [*again.new.values()] == [2] and sorted(again.images.values()) == [0, 1, 2]
    learned = own.train.images.clone()
    learned[0, 0] = digit(1)  # with data.collected: true it is a training image
    train = data.Split(learned, own.train.labels, 0.25, 0.5)
    mixed = data.Dataset(own.source, "", train, own.validation)
    corrected = harvest(mixed, project, [digit(1)], ["9"])
    assert [*corrected.new.values()] == [9] and sorted(corrected.images.values()) == [0, 9]


def test_the_same_drawings_are_the_same_bytes_and_stay_in_their_split(own, project):
    images, labels = [digit(number) for number in range(60)], [str(n % 10) for n in range(60)]
    first = keep(harvest(own, project, images, labels), project)
    sizes = {name: len(part[1]) for name, part in data.collected().items()}
    assert sum(sizes.values()) == 60 and 3 <= sizes["validation"] <= 25
    (project / "data" / "collected.json").write_text('{"cases": 0}')
    assert keep(harvest(own, project, images[::-1], labels[::-1]), project) == first
    facts = json.loads((project / "reports" / "harvest.json").read_text())
    assert facts == {"cases": 60, "new": 60}
