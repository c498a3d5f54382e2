"""Trainings repeat themselves bit for bit."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mnist import augment, data, training


def train(dataset: data.Dataset, seed: int = 0, **options) -> tuple[nn.Module, list[dict]]:
    training.prepare(seed, 1, "cpu")
    net = nn.Sequential(nn.Conv2d(1, 6, 5, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
                        nn.Dropout(0.1), nn.Linear(864, 10))
    history = training.fit(net, dataset.train, dataset.validation, epochs=6, batch=64, lr=0.01,
                           seed=seed, **options)
    return net, history


@pytest.mark.parametrize("options", [
    {}, {"augment": augment.shift(1)}, {"augment": augment.warp(1, 10, 0.1, 0.5)},
    {"fraction": 0.3},
])
def test_training_learns_and_repeats_itself(small, options, events):
    (first, history), (second, again) = train(small, **options), train(small, **options)
    pairs = zip(first.state_dict().values(), second.state_dict().values())
    assert history == again and all(torch.equal(a, b) for a, b in pairs)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["validation_accuracy"] > 0.9
    found = training.predict(first, small.validation)
    assert found.accuracy == history[-1]["validation_accuracy"]
    assert train(small, seed=1, **options)[1] != history
    assert len(events) == 18 and "validation_accuracy" in events[-1]["metrics"]


def test_linear_layers_train_by_onednn(monkeypatch):
    training.prepare(0, 1, "cpu")
    layer, values, called = nn.Linear(784, 32), torch.randn(64, 784), []
    original = torch.Tensor.to_mkldnn
    monkeypatch.setattr(torch.Tensor, "to_mkldnn", lambda one: called.append(1) or original(one))
    expected = F.linear(values, layer.weight, layer.bias)
    assert torch.allclose(layer(values), expected, atol=1e-5) and called == [1]
    assert torch.equal(layer.eval()(values), expected) and called == [1]


@pytest.mark.parametrize("epochs, batch", [(1, 1000), (2, 1000), (10, 50), (1, 5), (3, 25)])
def test_training_of_few_steps(epochs, batch):
    """From a single step on, also where a tenth of the steps is exactly one."""
    images = torch.randint(0, 256, (50, 1, 28, 28), dtype=torch.uint8)
    few = data.Split(images, torch.arange(50) % 10, 0.5, 0.25)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    history = training.fit(net, few, few, epochs=epochs, batch=batch, lr=0.01, seed=0)
    assert len(history) == epochs and all(math.isfinite(row["train_loss"]) for row in history)


def test_an_epoch_sees_the_hard_images_and_some_of_the_easy_ones():
    subset = training.DataSubset(100, 6, 10, 0.5, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    assert subset.steps == [10, 5, 5, 5, 10, 10]
    assert sorted(subset.images(1, generator).tolist()) == list(range(100))
    subset.losses[:] = 0.1
    subset.losses[:20] = 2.0
    subset.losses[20] = math.nan  # the whole batches of the first epoch need not hold all images
    seen = [set(subset.images(epoch, generator).tolist()) for epoch in (2, 3)]
    assert all(len(each) == 50 and set(range(21)) <= each for each in seen) and seen[0] != seen[1]
    hard_first = set(subset.images(4, generator)[:21].tolist()) <= set(range(21))
    assert not hard_first, "hard and easy images are mixed"
    assert len(set(subset.images(6, generator).tolist())) == 100
