"""A model as ONNX, with the same weights and an OOD score, for programs without PyTorch."""

import base64
import io
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from nbproof.notebook import write
from production.ood_detector import ModelWithDetector

OPSET = 18  # of ONNX; onnxruntime for browsers knows it, too
CHECKS = 8  # images whose probabilities the file holds, so that whoever loads it can compare
INPUT, OUTPUTS = "images", ["probabilities", "features", "strangeness"]  # docs/contract.md


def store(name: str, model: ModelWithDetector, images: torch.Tensor, labels: list[str]) -> Path:
    """Write models/NAME.onnx for any number of normalised images; `images` [N, 1, 28, 28] are some.

    Its metadata hold the `labels` as JSON, the `limit` of the OOD score above which the model
    abstains, and as base64 of float32 the first images with their probabilities.
    """
    checks = images[:CHECKS].contiguous()
    with torch.no_grad():
        probabilities = model(checks)[0]
    graph = onnx.load_from_string(_exported(model, checks))
    onnx.helper.set_model_props(graph, {
        "labels": json.dumps(labels), "limit": repr(model.threshold),
        "check_inputs": _base64(checks), "check_probabilities": _base64(probabilities)})
    onnx.checker.check_model(graph, full_check=True)
    return write(f"models/{name}.onnx", graph.SerializeToString(deterministic=True))


def _exported(model: ModelWithDetector, example: torch.Tensor) -> bytes:
    """Return the ONNX graph, traced by one call.

    PyTorch's newer exporter needs two more packages. Constants are not folded: that computes roots,
    which round differently on processors of different vendors. onnxruntime folds them anyway.
    """
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is deprecated, and leaves constants
        torch.onnx.export(
            model, (example,), file, dynamo=False, opset_version=OPSET, do_constant_folding=False,
            input_names=[INPUT], output_names=OUTPUTS,
            dynamic_axes={name: {0: "cases"} for name in (INPUT, *OUTPUTS)})
    return file.getvalue()


def _base64(values: torch.Tensor) -> str:
    return base64.b64encode(values.numpy().astype("<f4").tobytes()).decode()


class OnnxModel:
    """A stored ONNX file, run by onnxruntime on one thread."""

    def __init__(self, path: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        self.session = onnxruntime.InferenceSession(path.read_bytes(), options,
                                                    providers=["CPUExecutionProvider"])
        self.metadata = self.session.get_modelmeta().custom_metadata_map
        self.threshold = float(self.metadata["limit"])
        self.feature_count = self.session.get_outputs()[1].shape[1]

    def __call__(self, images: np.ndarray, batch: int = 1000) -> tuple[np.ndarray, ...]:
        """Return probabilities [N, 10], features [N, F] and OOD scores [N] of normalised images."""
        parts = [self.session.run(OUTPUTS, {INPUT: images[start : start + batch]})
                 for start in range(0, max(1, len(images)), batch)]
        return tuple(np.concatenate(values) for values in zip(*parts))
