"""The ONNX file of a model: the answers of PyTorch, the same bytes in any process, and what it says of itself."""

import base64
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from projects import ROOT
from torch import nn

from mnist import data, models, portable, strange, training
from nbproof.notebook.files import digest

MAKES = """
import sys
sys.path[:0] = [{notebooks!r}, {tests!r}]
from test_portable import made
from mnist import portable
watched, dataset = made()
print(portable.store("x", watched, dataset.validation))
"""


def made() -> tuple[strange.Watched, data.Dataset]:
    """A net that learned a little, watched, and the bars at ten heights that it learned."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 10
    images = 0.1 * torch.rand(400, 1, 28, 28, generator=generator)
    for image, label in zip(images, labels.tolist()):
        image[0, 2 + 2 * label : 8 + 2 * label, 6:22] += 0.8
    images = (images - 0.2) / 0.3
    split = data.Split(images, labels)
    dataset = data.Dataset("digits", "0" * 64, split, data.Split(images[:200], labels[:200]), 0.2, 0.3)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.PixelUnshuffle(2), nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(0.1), nn.Linear(288, 10),
    )
    training.fit(net, split, split, epochs=2, batch=40, lr=0.01, seed=0)
    return strange.watch(models.FiveLooks(net), dataset, seed=0), dataset


@pytest.fixture(scope="module")
def watched():
    return made()


@pytest.fixture
def stored(watched, project):
    return portable.store("x", watched[0], watched[1].validation)


def test_the_answers_are_those_of_pytorch_for_any_number_of_images(watched, stored):
    model, dataset = watched
    asked, program = portable.Portable(stored), models.program("models/x.pt2")
    for count in (1, 2, 7, 200):
        images = dataset.validation.images[:count]
        said = asked(images.numpy(), batch=150)
        with torch.no_grad():
            expected, features, strangeness = model(images)
            again = program(images)
        assert np.abs(said["probabilities"] - expected.numpy()).max() < 1e-5
        assert np.allclose(said["features"], features, atol=1e-4) and said["features"].shape == (count, 288)
        assert np.allclose(said["strangeness"], strangeness, atol=1e-3) and said["strangeness"].shape == (count,)
        assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(again, (expected, features, strangeness)))
    judged, strangeness = asked.evaluate(dataset.validation)
    assert judged.predictions.equal(training.evaluate(model.model, dataset.validation).predictions)
    assert (strangeness <= asked.limit).mean() == pytest.approx(strange.ANSWERED, abs=0.006)


def test_it_brings_its_own_check_and_labels(watched, stored):
    asked = portable.Portable(stored)
    assert json.loads(asked.metadata["labels"]) == [str(digit) for digit in range(10)]
    inputs, expected = (np.frombuffer(base64.b64decode(asked.metadata[key]), "<f4").reshape(portable.CHECKS, -1)
                        for key in ("check_inputs", "check_probabilities"))
    assert np.array_equal(inputs, watched[1].validation.images[: portable.CHECKS].flatten(1).numpy())
    assert np.abs(asked(inputs.reshape(-1, 1, 28, 28))["probabilities"] - expected).max() < 1e-5


def test_another_process_writes_the_same_bytes(watched, stored, project):
    first = digest(stored), digest(stored.with_suffix(".pt2"))
    code = MAKES.format(notebooks=str(ROOT / "notebooks"), tests=str(ROOT / "tests" / "mnist"))
    (project / "again").mkdir()
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=project, text=True, capture_output=True,
                          env=environment(project / "again"))
    assert done.returncode == 0, done.stderr[-2000:]
    again = project / "again" / "models" / "x.onnx"
    assert (digest(again), digest(again.with_suffix(".pt2"))) == first
    assert str(project).encode() not in stored.read_bytes() and b"site-packages" not in stored.read_bytes()


def environment(output) -> dict[str, str]:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    return os.environ | {"NBPROOF_OUTPUT": str(output), "PYTHONPATH": paths}


def test_other_weights_are_noticed(watched, stored, project):
    """That the answers agree is no accident of an easy comparison."""
    with torch.no_grad():
        before = watched[0].model.net[-1].bias[0].item()
        watched[0].model.net[-1].bias[0] += 0.01
        expected = watched[0](watched[1].validation.images)[0]
        watched[0].model.net[-1].bias[0] = before
    assert np.abs(portable.Portable(stored)(watched[1].validation.images.numpy())["probabilities"] - expected.numpy()
                  ).max() > 1e-5
