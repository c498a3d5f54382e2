"""Trained models on disk: a program without pickle, its validation answers, its curve and its metrics."""

import csv
import hashlib
import io
import json
from pathlib import Path

import torch
from torch import nn

from digits import data, paths
from digits.comparison import Candidate
from digits.training import Evaluation


def count_parameters(net: nn.Module) -> int:
    """How many numbers training can change."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def layers(net: nn.Sequential, images: torch.Tensor) -> str:
    """A Markdown table of the layers: what each is, the shape it gives for one image, its number of parameters."""
    rows, values = ["| layer | gives | parameters |", "|:--|:--|--:|"], images[:2]
    net.eval()
    with torch.no_grad():
        for layer in net:
            values = layer(values)
            rows.append(f"| {type(layer).__name__} | {' × '.join(map(str, values.shape[1:]))} | {count_parameters(layer):,} |")
    return "\n".join([*rows, f"| **all** | | **{count_parameters(net):,}** |"])


def export(net: nn.Module, example: torch.Tensor) -> bytes:
    """`net` as a torch.export archive for any number of images: graph as JSON, weights as raw bytes, no pickle inside."""
    net = net.cpu().to(memory_format=torch.contiguous_format).eval()  # the archive keeps the plain layout alone
    program = torch.export.export(net, (example[:2].cpu(),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    program.example_inputs = None  # the one part that torch would pickle
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names the folders of this machine
    archive = io.BytesIO()  # a buffer: the archive holds its file's name, and a buffer has none
    torch.export.save(program, archive)
    return archive.getvalue()


def load(name: str, device: torch.device | str = "cpu") -> nn.Module:
    """The model `name`, ready to answer; runs no code from the file."""
    with paths.source(f"models/{name}.pt2").open("rb") as archive:
        return torch.export.load(archive).module().to(device)


def digest(path: Path) -> str:
    """SHA-256 of a stored model: the same bytes, the same model, in whatever clone."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def store(name: str, net: nn.Module, digits: data.Digits, history: list[dict], validation: Evaluation) -> dict:
    """Write models/NAME.pt2 and .safetensors, metrics/NAME.json and .csv; returns the metrics."""
    metrics = {
        "data": digits.source, "validation_accuracy": round(validation.accuracy, 6),
        "validation_loss": round(validation.loss, 6), "parameters": count_parameters(net), "epochs": len(history),
    }
    table = io.StringIO()
    writer = csv.DictWriter(table, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: round(value, 6) for key, value in row.items()} for row in history)
    paths.write(f"models/{name}.pt2", export(net, digits.validation.images))
    answers = {"probabilities": validation.probabilities, "labels": validation.labels}
    data.store(f"models/{name}.safetensors", answers, history=history, parameters=metrics["parameters"], source=digits.source)
    paths.write(f"metrics/{name}.csv", table.getvalue())
    paths.write(f"metrics/{name}.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def candidate(name: str) -> Candidate:
    """What the comparison needs of a stored model."""
    tensors, facts = data.restore(f"models/{name}.safetensors")
    return Candidate(name, facts["parameters"], facts["history"], Evaluation(tensors["probabilities"], tensors["labels"]))


def save_for_mlflow(net: nn.Module, digits: data.Digits, folder: Path) -> None:
    """`net` as an MLflow model (pt2, no pickle), with what somebody needs who has an image and not this code: size, scale, ink."""
    import mlflow.pytorch

    example = digits.validation.images[:2].cpu()
    with torch.no_grad():
        signature = mlflow.models.infer_signature(example.numpy(), net(example).numpy())
    # bright ink, its longer side scaled to 20 of the 28 pixels and its mass in the middle, is how MNIST was made
    expects = {"mean": digits.mean, "deviation": digits.deviation, "ink": "bright", "ink_side": 20}
    mlflow.pytorch.save_model(
        net, folder, signature=signature, input_example=example.numpy(), serialization_format="pt2", metadata=expects,
        pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
    )
