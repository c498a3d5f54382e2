"""The ONNX file of a model: PyTorch's predictions, its own check, and the same bytes anywhere."""

import json
import sys

import numpy as np
import torch
from projects import ROOT, command

from mnist import models
from nbproof.notebook.files import digest
from production import onnx_export, ood_detector

LABELS = [*"0123456789"]
AGAIN = """
import torch
from mnist import models
from production import onnx_export, ood_detector
models.load = lambda name: models.program("program.pt2")
onnx_export.store("y", ood_detector.load("x"), torch.zeros(8, 1, 28, 28), ["a"])
"""


def test_it_predicts_what_pytorch_predicts_for_any_number_of_images(model, trained, dataset):
    images = dataset.validation.normalised(slice(200))
    onnx = onnx_export.OnnxModel(onnx_export.store("x", model, images, LABELS))
    for count in (1, 2, 7, 200):
        outputs = onnx(images[:count].numpy(), batch=150)
        with torch.no_grad():
            expected = model(images[:count])
            assert torch.allclose(expected[0], trained[0](images[:count]).softmax(1), atol=1e-5)
            assert torch.allclose(expected[1], trained[0].net[:-1](images[:count]), atol=1e-4)
        for values, wanted, near in zip(outputs, expected, (1e-5, 1e-4, 1e-3)):
            assert np.allclose(values, wanted, atol=near) and values.shape == wanted.shape
    assert onnx.threshold == model.threshold and onnx.feature_count == 800
    assert json.loads(onnx.metadata["labels"]) == LABELS and "check_inputs" in onnx.metadata


def test_another_process_writes_the_same_bytes(model, trained, project, monkeypatch):
    """Also from the detector's own file, which the notebook `know` reads."""
    (project / "program.pt2").write_bytes(trained[1])
    ood_detector.store("x", model)
    monkeypatch.setattr(models, "load", lambda name: models.program("program.pt2"))
    again, images = ood_detector.load("x"), torch.rand(5, 1, 28, 28)
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(again(images), model(images)))
    here = onnx_export.store("x", again, torch.zeros(8, 1, 28, 28), ["a"])
    done = command(project, sys.executable, "-W", "ignore", "-c", AGAIN, OMP_NUM_THREADS="1",
                   NBPROOF_OUTPUT=str(project), PYTHONPATH=f"{ROOT}:{ROOT / 'notebooks'}")
    assert done.returncode == 0, done.stdout[-2000:]
    assert digest(here) == digest(project / "models" / "y.onnx")
    assert str(project).encode() not in here.read_bytes()
    assert b"site-packages" not in here.read_bytes()
