"""Asking the champion by its ONNX file: the same words as by MLflow, `I do not know`, and many pictures at once."""

import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from projects import ROOT, command, nbproof
from test_knowing import digits, watched  # noqa: F401 - fixtures: a net that knows the small digits

from mnist import ask, portable, strange

CONTRACT = """\
name: test
metric: {key: validation_accuracy, goal: max}
compare: compare
hooks: {prepare: "mnist.ask:prepare", answer: "mnist.ask:answer"}
"""


@pytest.fixture
def asked(watched, digits, project):  # noqa: F811
    """A project whose champion is an ONNX file, and pictures: digits of the validation set, noise, a letter."""
    portable.store("cnn", watched, digits.validation)
    (project / "project.yaml").write_text(CONTRACT)
    (project / "params.yaml").write_text("models: {cnn: {}}\n")
    (project / "metrics").mkdir()
    (project / "metrics" / "compare.json").write_text('{"champion": "cnn"}')
    (project / "notebooks").symlink_to(ROOT / "notebooks")
    (project / "models" / "cnn").mkdir()
    expects = f"{{mean: {digits.mean}, deviation: {digits.deviation}, ink: bright, ink_side: 20}}"
    (project / "models" / "cnn" / "MLmodel").write_text(f"metadata: {expects}\n")
    ink = strange.inked(digits.validation.images[:40], digits)[:, 0]
    noise = torch.rand(28, 28, generator=torch.Generator().manual_seed(1))
    for number, image in enumerate([*ink, noise]):
        Image.fromarray((image.numpy() * 255).round().astype(np.uint8)).save(project / f"{number:02}.png")
    return project


def predict(folder, *names: str):
    return nbproof(folder, "predict", *names, MLFLOW_TRACKING_URI="")


def test_digits_and_noise_in_one_call(asked, watched, digits):  # noqa: F811
    began = time.monotonic()
    done = predict(asked, *(f"{number:02}.png" for number in range(41)))
    seconds = time.monotonic() - began
    assert done.returncode == 0 and "has no champion yet. models/cnn.onnx of this folder is used" in done.stdout
    said = [part for part in done.stdout.split("\n\n") if "%" in part or "I do not know" in part]
    assert len(said) == 41 and said[-1].startswith("I do not know: it is unlike anything that the model learned from.")
    with torch.no_grad():
        chances, _, strangeness = watched(digits.validation.images[:40])
    for text, row, value in zip(said, chances.numpy(), strangeness.tolist()):
        words = text.split("\n")
        assert (ask.in_words(row) in words) == (value <= watched.limit), text
    assert seconds < 6, seconds  # without torch and MLflow; 2 s where nothing else is at work


def test_neither_mlflow_nor_torch_is_loaded(asked):
    code = ("import sys, pathlib\nfrom nbproof.tracking.predict import predict\npredict([pathlib.Path('00.png')])\n"
            "print([name for name in ('mlflow', 'torch', 'pandas', 'dvc') if name in sys.modules])")
    done = command(asked, sys.executable, "-c", code, MLFLOW_TRACKING_URI="", PYTHONPATH=str(ROOT))
    assert done.returncode == 0 and "[]" in done.stdout.splitlines(), done.stdout


def test_a_damaged_file_is_not_asked(asked):
    (asked / "models" / "cnn.onnx").write_bytes(b"no model")
    done = predict(asked, "00.png")
    assert done.returncode != 0 and "%" not in done.stdout, done.stdout
