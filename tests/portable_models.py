"""Tiny ONNX models as `nbproof serve` takes them, made without training."""

import base64
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def portable(path: Path, says: int, *, limit: float = 5.0, right: bool = True,
             checked: bool = True) -> Path:
    """An ONNX model at `path` that predicts the digit `says`, sure to 90%, for any image.

    Its OOD score is the size of the image's mean. Where `right` is false its stored answers are
    those of another model.
    """
    wanted = np.full(10, 0.1 / 9, np.float32)
    wanted[says] = 0.9
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Abs", ["mean"], ["strangeness"]),
        helper.make_node("MatMul", ["flat", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "logits"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["probabilities"], axis=1),
        helper.make_node("MatMul", ["flat", "look"], ["features"]),
    ]
    weights = {"nothing": np.zeros((784, 10), np.float32), "logits": np.log(wanted),
               "look": np.random.default_rng(0).normal(size=(784, 4)).astype(np.float32)}
    shapes = {"probabilities": [None, 10], "features": [None, 4], "strangeness": [None]}
    described = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                 for name, shape in ({"images": ["N", 1, 28, 28]} | shapes).items()}
    graph = helper.make_graph(
        nodes, "small", [described.pop("images")], [*described.values()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    held = {"labels": json.dumps([str(digit) for digit in range(10)]), "limit": str(limit)}
    if checked:
        answers = np.tile(wanted if right else np.roll(wanted, 1), (8, 1))
        held |= {"check_inputs": _text(np.zeros((8, 1, 28, 28))),
                 "check_probabilities": _text(answers)}
    helper.set_model_props(model, held)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def _text(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()
