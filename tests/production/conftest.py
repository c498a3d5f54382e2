"""The notebooks' modules importable, a small data set, and a small model that has learned it."""

import io
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "notebooks"))


@pytest.fixture(autouse=True)
def project(tmp_path_factory, monkeypatch) -> Path:
    """An empty project, in whose folder outputs are written and read."""
    from nbproof.notebook import files

    folder = tmp_path_factory.mktemp("project")
    (folder / "project.yaml").write_text("name: test\nmetric: {key: accuracy, goal: max}\n")
    (folder / "params.yaml").write_text("models: {cnn: {}}\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NBPROOF_OUTPUT", str(folder))
    files.root.cache_clear()
    yield folder
    files.root.cache_clear()


@pytest.fixture(scope="session")
def dataset():
    """scikit-learn's digits in random order: 600 for training, 1,197 for validation."""
    from mnist import data, sources

    tensors = sources.fetch("digits")
    images = torch.cat([tensors["train_images"], tensors["test_images"]])[:, None]
    labels = torch.cat([tensors["train_labels"], tensors["test_labels"]])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    pixels = images[order[:600]].float() / 255
    mean, deviation = pixels.mean().item(), pixels.std().item()
    train, validation = (data.Split(images[rows], labels[rows], mean, deviation)
                         for rows in (order[:600], order[600:]))
    return data.Dataset(sources.SOURCES["digits"], "0" * 64, train, validation)


@pytest.fixture(scope="session")
def trained(dataset):
    """A small net that predicts from several views, exported as models/NAME stores it."""
    from mnist import models, training

    training.prepare(0, 1, "cpu")
    net = nn.Sequential(
        nn.PixelUnshuffle(2), nn.Conv2d(4, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3), nn.MaxPool2d(2), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
        nn.Linear(800, 10))
    training.fit(net, dataset.train, dataset.validation, epochs=6, batch=50, lr=0.01, seed=0)
    model = models.TestTimeAugmentation(net).eval()
    return model, models.export(model, dataset.train.normalised(slice(2)))


@pytest.fixture(scope="session")
def model(dataset, trained):
    """The exported net with an OOD detector."""
    from production import ood_detector

    program = torch.export.load(io.BytesIO(trained[1])).module()
    return ood_detector.fit(program, dataset, seed=0)
