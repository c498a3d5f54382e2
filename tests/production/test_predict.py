"""`nbproof predict` with an exported model: digits, and an abstention, without PyTorch."""

import sys

import numpy as np
import torch
from PIL import Image
from projects import ROOT, command, nbproof

from production import onnx_export

HOOKS = """\
hooks:
  prepare: production.preprocessing:prepare
  answer: production.preprocessing:answer"""
CODE = ("import sys, pathlib\nfrom nbproof.tracking.predict import predict\n"
        "predict([pathlib.Path('00.png')])\n"
        "print([name for name in ('mlflow', 'torch', 'dvc') if name in sys.modules])")


def test_digits_and_noise_in_one_call(model, dataset, project):
    validation = dataset.validation
    onnx_export.store("cnn", model, validation.normalised(slice(8)), [*"0123456789"])
    contract = project / "project.yaml"
    contract.write_text(f"{contract.read_text()}compare: compare\n{HOOKS}\n")
    for name, text in {
        "metrics/compare.json": '{"champion": "cnn"}', "models/cnn/MLmodel":
        f"metadata: {{mean: {validation.mean}, deviation: {validation.deviation}, "
        "ink: bright, ink_side: 20}\n"}.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    (project / "notebooks").symlink_to(ROOT / "notebooks")
    noise = torch.randint(256, (28, 28), generator=torch.Generator().manual_seed(1)).byte()
    for number, image in enumerate([*validation.images[:20, 0], noise]):
        Image.fromarray(image.numpy()).save(project / f"{number:02}.png")
    names = [f"{number:02}.png" for number in range(21)]
    done = nbproof(project, "predict", *names, MLFLOW_TRACKING_URI="")
    assert done.returncode == 0 and "models/cnn of this folder" in done.stdout
    with torch.no_grad():
        probabilities, _, scores = model(validation.normalised(slice(20)))
    digits = np.where(scores <= model.threshold, probabilities.argmax(1), -1).tolist()
    texts = [text for text in done.stdout.split("\n\n") if "%" in text or "I do not know" in text]
    assert len(texts) == 21 and "I do not know" in texts[-1]
    for text, digit in zip(texts, digits):
        assert "I do not know" in text if digit < 0 else f"\n{digit} (" in f"\n{text}", text
    done = command(project, sys.executable, "-c", CODE, MLFLOW_TRACKING_URI="",
                   PYTHONPATH=str(ROOT))
    assert done.returncode == 0 and "[]" in done.stdout.splitlines(), done.stdout
