"""Models for those who have no torch: as ONNX, with the same weights, and with a measure of how strange an input is."""

import base64
import copy
import io
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from mnist import models
from mnist.data import Split
from mnist.evaluation import Evaluation
from mnist.strange import Watched
from nbproof.notebook import write

OPSET = 18  # of ONNX; the browser's runtime knows it, too
CHECKS = 8  # validation images that go along with PyTorch's probabilities, so that whoever loads the file can compare


def store(name: str, watched: Watched, validation: Split) -> Path:
    """Write models/NAME.onnx: `images` in; `probabilities`, `features` and `strangeness` out, for any number of images.

    Its metadata say the `labels` as JSON, the `limit` above which an image is too strange to be answered, and the first
    validation images with their probabilities, `check_inputs` and `check_probabilities`, as base64 of float32.
    The same is also written as a program of PyTorch, models/NAME.pt2, which gives the same digits on every processor.
    """
    watched = copy.deepcopy(watched).cpu().to(memory_format=torch.contiguous_format).eval()
    checks = validation.images[:CHECKS].cpu().contiguous()
    with torch.no_grad():
        probabilities = watched(checks)[0]
    write(f"models/{name}.pt2", models.export(watched, checks))
    model = onnx.load_from_string(_exported(watched, checks))
    onnx.helper.set_model_props(model, {
        "labels": json.dumps([str(label) for label in range(probabilities.shape[1])]), "limit": repr(watched.limit),
        "check_inputs": _text(checks), "check_probabilities": _text(probabilities),
    })
    onnx.checker.check_model(model, full_check=True)
    return write(f"models/{name}.onnx", model.SerializeToString(deterministic=True))


def _exported(watched: Watched, example: torch.Tensor) -> bytes:
    """The graph, followed through one call. The newer exporter of PyTorch needs two more packages and does no more.

    Nothing is computed beforehand, such as a normalisation put into a convolution's weights: that takes roots, which
    PyTorch's exporter rounds as the processor's vendor does. Whoever loads the file does it anyway.
    """
    file, names = io.BytesIO(), ["images", "probabilities", "features", "strangeness"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is old, and of constants that it does not fold
        torch.onnx.export(
            watched, (example,), file, dynamo=False, opset_version=OPSET, input_names=names[:1], output_names=names[1:],
            training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
            dynamic_axes={name: {0: "cases"} for name in names},
        )
    return file.getvalue()


def _text(values: torch.Tensor) -> str:
    return base64.b64encode(values.numpy().astype("<f4").tobytes()).decode()


class Portable:
    """A stored ONNX file, asked by onnxruntime on one thread."""

    def __init__(self, path: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        self.session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        self.metadata = self.session.get_modelmeta().custom_metadata_map
        self.limit = float(self.metadata["limit"])

    def __call__(self, images: np.ndarray, batch: int = 1000) -> dict[str, np.ndarray]:
        """`probabilities` [N, 10], `features` [N, F] and `strangeness` [N] of the images float32 [N, 1, 28, 28]."""
        names = [each.name for each in self.session.get_outputs()]
        parts = [self.session.run(names, {"images": images[start : start + batch]})
                 for start in range(0, max(1, len(images)), batch)]
        return {name: np.concatenate(values) for name, values in zip(names, zip(*parts))}

    def evaluate(self, split: Split) -> tuple[Evaluation, np.ndarray]:
        """The answers for every image of `split`, and how strange each of them is."""
        said = self(split.images.cpu().numpy())
        return Evaluation(torch.from_numpy(said["probabilities"]), split.labels.cpu()), said["strangeness"]
