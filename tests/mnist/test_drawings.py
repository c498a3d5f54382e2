"""What people drew: cleaned, kept once, learned from and judged apart from everything else."""

import dataclasses
import json
import shutil

import logs
import numpy as np
import pytest
import torch

from mnist import data, drawings
from nbproof.notebook import served
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest

MEAN, DEVIATION, STRANGEST = 0.25, 0.5, 6.0


def digit(number: int) -> torch.Tensor:
    """A picture of its own, as bytes [28, 28], with as much ink as a digit has."""
    image = torch.zeros(28, 28, dtype=torch.uint8)
    image[5 : 22, 8 + number % 8 : 12 + number % 8] = 200
    image[number // 8, 0] = 90
    return image


def normalised(images: torch.Tensor) -> np.ndarray:
    return ((images.float() / 255 - MEAN) / DEVIATION)[:, None].numpy()


def model(images: np.ndarray) -> dict[str, np.ndarray]:
    """Answers 3 to everything; an image is as strange as the grey of its lower right corner in steps of ten."""
    count = len(images)
    chances = np.full((count, 10), 0.05, dtype=np.float32)
    chances[:, 3] = 0.55
    strangeness = ((images[:, 0, -1, -1] * DEVIATION + MEAN) * 25.5).astype(np.float32)
    return {"probabilities": chances, "features": np.zeros((count, 4), np.float32), "strangeness": strangeness}


model.limit = 3.0


@pytest.fixture
def dataset(project) -> data.Dataset:
    (project / "data").mkdir()
    (project / "data" / "drawn.json").write_text('{"cases": 0}\n')
    own = torch.stack([digit(number) for number in range(200, 204)])
    split = data.Split(torch.from_numpy(normalised(own)), torch.arange(4))
    return data.Dataset("digits", "0" * 64, split, split, MEAN, DEVIATION)


def harvested(dataset, project, images: list[torch.Tensor], labels: list[str | None]) -> drawings.Harvest:
    """The harvest of a log that holds these images with these labels, and nothing else."""
    shutil.rmtree(project / "served", ignore_errors=True)
    logs.write(project, model, normalised(torch.stack(images)),
               {place: label for place, label in enumerate(labels) if label is not None})
    return drawings.gathered(served.served(features=False), dataset, STRANGEST)


def keep(harvest: drawings.Harvest, project) -> None:
    """What `nbproof harvest` does with it."""
    drawings.store(harvest)
    facts = {"cases": len(harvest.kept), "digest": digest(project / "data" / "drawn")}
    (project / "data" / "drawn.json").write_text(json.dumps(facts))


def test_nonsense_and_duplicates_stay_out(dataset, project):
    strange = digit(6)
    strange[-1, -1] = 255
    odd = [torch.zeros(28, 28, dtype=torch.uint8), torch.full((28, 28), 255, dtype=torch.uint8), strange, digit(201)]
    images = [digit(0), digit(1), digit(1), digit(2), digit(2), digit(3), digit(4), *odd]
    labels = ["0", "1", "1", "2", "7", None, "eleven", "3", "3", "3", "1"]
    harvest = harvested(dataset, project, images, labels)
    assert sorted(harvest.new.labels.tolist()) == [0, 1] and len(harvest.kept) == 2
    assert {image.numpy().tobytes() for image in harvest.new.images} == {digit(n).numpy().tobytes() for n in (0, 1)}
    assert harvest.left_out == {
        "drawn twice, or harvested before": 2, "two labels for one image": 1, "the label is no digit": 1,
        "next to nothing is drawn, or next to everything": 2, "too strange to be any digit": 1,
        "an image of the data set itself": 1,
    }
    assert len(harvest.odd) == 5 and "| two labels for one image | 1 |" in drawings.left_out(harvest)


def test_a_second_harvest_adds_to_the_first(dataset, project):
    keep(harvested(dataset, project, [digit(0), digit(1)], ["0", "1"]), project)
    again = harvested(dataset, project, [digit(0), digit(2)], ["0", "2"])
    assert again.new.labels.tolist() == [2] and sorted(again.kept.labels.tolist()) == [0, 1, 2]
    corrected = harvested(dataset, project, [digit(1)], ["9"])
    assert corrected.new.labels.tolist() == [9] and sorted(corrected.kept.labels.tolist()) == [0, 9]
    learned = data.Split(torch.cat([dataset.train.images, torch.from_numpy(normalised(digit(1)[None]))]),
                         torch.arange(5))  # as with data.drawn: true
    corrected = harvested(dataclasses.replace(dataset, train=learned), project, [digit(1)], ["9"])
    assert corrected.new.labels.tolist() == [9], "what was learned with a wrong label can be put right"


def test_the_same_drawings_are_the_same_bytes_and_stay_in_their_split(dataset, project):
    images, labels = [digit(number) for number in range(60)], [str(number % 10) for number in range(60)]
    keep(harvested(dataset, project, images, labels), project)
    first, parts = digest(project / "data" / "drawn"), drawings.stored().split()
    keep(harvested(dataset, project, images[::-1], labels[::-1]), project)
    assert digest(project / "data" / "drawn") == first
    assert 3 <= len(parts["validation"]) <= 25 and len(parts["train"]) + len(parts["validation"]) == 60
    half = drawings.Drawings(torch.stack(images[:30]), torch.zeros(30)).split()["validation"]
    whole = {image.numpy().tobytes() for image in parts["validation"].images}
    assert {image.numpy().tobytes() for image in half.images} <= whole  # more drawings move none to the other side


def test_they_are_learned_from_and_change_no_other_set(dataset, project):
    keep(harvested(dataset, project, [digit(n) for n in range(60)], [str(n % 10) for n in range(60)]), project)
    plain = {"train_images": torch.zeros(3, 28, 28, dtype=torch.uint8), "train_labels": torch.tensor([1, 2, 3]),
             "validation_images": torch.ones(2, 28, 28, dtype=torch.uint8), "validation_labels": torch.tensor([4, 5])}
    tested = torch.zeros(1, 28, 28, dtype=torch.uint8)
    assert len(drawings.added(plain, drawings.stored(), drawings.stored().images[:7])["train_labels"]) < len(
        drawings.added(plain, drawings.stored(), tested)["train_labels"]), "no test image is learned from"
    mixed = drawings.added(plain, drawings.stored(), tested)
    assert torch.equal(mixed["validation_images"], plain["validation_images"])
    assert torch.equal(mixed["train_images"][:3], plain["train_images"])
    assert len(mixed["train_labels"]) - 3 + len(mixed["drawn_labels"]) == 60
    learned = {image.numpy().tobytes() for image in mixed["train_images"]}
    assert not learned & {image.numpy().tobytes() for image in mixed["drawn_images"]}
    data.store(data.TRAIN, mixed, source="digits", mean=MEAN, deviation=DEVIATION)
    loaded = data.load()
    assert len(loaded.drawn) == len(mixed["drawn_labels"]) and len(loaded.validation) == 2
    data.store(data.TRAIN, plain, source="digits", mean=MEAN, deviation=DEVIATION)
    assert data.load().drawn is None


def test_another_version_than_the_one_named_is_refused(dataset, project):
    keep(harvested(dataset, project, [digit(0)], ["0"]), project)
    assert len(drawings.stored()) == 1
    next((project / "data" / "drawn").iterdir()).unlink()
    with pytest.raises(UserError, match="does not hold the 1 drawings that data/drawn.json names: bring them by"):
        drawings.stored()
