"""Trained models on disk: a program that runs no code when it is loaded, its answers, its curve and its metrics."""

import csv
import io
import itertools
import json
import math
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from mnist import data
from mnist.evaluation import Evaluation
from nbproof.notebook import source, write
from nbproof.notebook.errors import UserError
from nbproof.notebook.models import save_model

PROGRAM = "data/program/model.pt2"  # in the folder of the MLflow model
EXAMPLE = (torch.zeros(0, 1, 28, 28),), {}  # a call without any image
TENSOR = re.compile(r"weight_\d+|tensor_\d+")
TEXT = {
    "models/model.json", "archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id",
}


def count_parameters(net: nn.Module) -> int:
    """How many numbers training can change."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


class FiveLooks(nn.Module):
    """A net that looks at each image as it is, and four times shifted by a pixel and turned by eight degrees.

    Gives the mean of the logarithms of its five answers [N, 10]: the geometric mean of the probabilities, as logits.
    """

    def __init__(self, net: nn.Module, side: int = 28):
        super().__init__()
        self.net, self.side = net, side
        moved = [_moved(side, *each) for each in ((0, 1, 8), (0, -1, -8), (1, 0, -8), (-1, 0, 8))]
        places, weights = (torch.stack(each, 1) for each in zip(*moved))
        self.register_buffer("places", places.flatten())
        self.register_buffer("weights", weights)  # [4 neighbours, 4 looks, pixels]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = images.flatten(1).index_select(1, self.places).view(-1, *self.weights.shape) * self.weights
        looks = (values[:, 0] + values[:, 1] + values[:, 2] + values[:, 3]).view(-1, 4, self.side, self.side)
        answers = [self.net(look) for look in (images, *looks.split(1, 1))]
        return torch.stack([answer.log_softmax(1) for answer in answers]).mean(0)


def _moved(side: int, right: int, down: int, degrees: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each pixel of a moved image its four neighbours in the image as it is, int64 [4, pixels], and their weights.

    Bilinear; what lies outside is as the rim. In Python's own numbers, rounded: the same on every processor.
    """
    cos, sin, middle = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), (side - 1) / 2
    places, weights = [], []
    for row, column in itertools.product(range(side), repeat=2):
        y, x = row - middle - down, column - middle - right
        y, x = (round(min(max(each + middle, 0), side - 1), 4) for each in (cos * y + sin * x, cos * x - sin * y))
        top, left = min(int(y), side - 2), min(int(x), side - 2)
        places.append([(top + below) * side + left + beside for below in (0, 1) for beside in (0, 1)])
        shares = itertools.product((1 - y + top, y - top), (1 - x + left, x - left))
        weights.append([vertical * horizontal for vertical, horizontal in shares])
    return torch.tensor(places).T, torch.tensor(weights).T


def layers(net: nn.Sequential, images: torch.Tensor) -> str:
    """A Markdown table of the layers: what each is, the shape it gives for one image, its number of parameters."""
    rows, values = ["| layer | gives | parameters |", "|:--|:--|--:|"], images[:2]
    net.eval()
    with torch.no_grad():
        for layer in net:
            values = layer(values)
            shape = " × ".join(map(str, values.shape[1:]))
            rows.append(f"| {type(layer).__name__} | {shape} | {count_parameters(layer):,} |")
    return "\n".join([*rows, f"| **all** | | **{count_parameters(net):,}** |"])


def export(net: nn.Module, example: torch.Tensor) -> bytes:
    """`net` as a torch.export archive for any number of images: the graph is JSON, the weights are raw bytes.

    The one record that torch pickles is the example call, and it is the same, EXAMPLE, in every archive. The format
    allows to leave it empty, but MLflow's own search for pickles refuses an archive without it.
    """
    net = net.cpu().to(memory_format=torch.contiguous_format).eval()  # the archive keeps the plain layout only
    program = torch.export.export(net, (example[:2].cpu(),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    program.example_inputs = EXAMPLE
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    archive = io.BytesIO()  # a buffer: the archive contains its file's name, and a buffer has none
    torch.export.save(program, archive)
    return archive.getvalue()


def load(name: str, device: torch.device | str = "cpu") -> nn.Module:
    """The model `name`, ready to answer. UserError if its file holds a pickle, which could run code when it is read."""
    return program(f"models/{name}/{PROGRAM}").to(device)


def program(name: str) -> nn.Module:
    """The program in the file `name`, ready to be called. UserError as in `load`."""
    loaded = torch.export.load(_checked(name)).module()
    return loaded.to(memory_format=torch.channels_last)  # convolutions are twice as fast


def _checked(name: str) -> io.BytesIO:
    """The archive `name`, written anew from the records that were read and found to be such as `export` writes."""
    checked = io.BytesIO()
    try:
        with zipfile.ZipFile(source(name)) as given, zipfile.ZipFile(checked, "w") as kept:
            for record in given.infolist():
                content = given.read(record)
                if not _is_plain(record.filename.partition("/")[2], content):
                    raise UserError(
                        f"{name} is not loaded: its part {record.filename} could run code when it is read. "
                        "Remove the model and run its stage again."
                    )
                kept.writestr(record.filename, content)
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # RuntimeError: encrypted, or packed in another way
        raise UserError(f"{name} is damaged ({error}). Remove the model and run its stage again.") from None
    checked.seek(0)
    return checked


def _is_plain(name: str, content: bytes) -> bool:
    """Whether torch reads the record `name` of an archive without unpickling it (or it is the pickle of EXAMPLE)."""
    folder, _, file = name.rpartition("/")
    if name == "data/sample_inputs/model.pt":
        expected = io.BytesIO()
        torch.save(EXAMPLE, expected)
        return content == expected.getvalue()
    if folder not in ("data/weights", "data/constants"):
        return name in TEXT
    if file != f"model_{folder.rpartition('/')[2]}_config.json":
        return bool(TENSOR.fullmatch(file))
    try:
        entries = json.loads(content)["config"].values()
        return all(entry["use_pickle"] is False and TENSOR.fullmatch(entry["path_name"]) for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def store(name: str, net: nn.Module, dataset: data.Dataset, history: list[dict], validation: Evaluation) -> dict:
    """Write what the stage leaves behind, and return its metrics.

    models/NAME (an MLflow model), models/NAME.csv (its answers: columns actual, predicted), models/NAME.safetensors
    (its probabilities, for the comparison), metrics/NAME.csv (its curve) and metrics/NAME.json.
    """
    metrics = {
        "data": dataset.source, "validation_accuracy": round(validation.accuracy, 6),
        "validation_loss": round(validation.loss, 6), "parameters": count_parameters(net), "epochs": len(history),
    }
    save_model(name, lambda folder: _save(net, dataset, folder))
    store_answers(f"models/{name}.csv", validation)
    answers = {"probabilities": validation.probabilities, "labels": validation.labels}
    facts = {"history": history, "parameters": metrics["parameters"], "source": dataset.source}
    data.store(f"models/{name}.safetensors", answers, **facts)
    curve = [{key: round(value, 6) for key, value in row.items()} for row in history]
    write(f"metrics/{name}.csv", _as_csv(list(history[0]), [list(row.values()) for row in curve]))
    write(f"metrics/{name}.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def store_answers(name: str, evaluation: Evaluation) -> None:
    """Write a CSV file with the true and the predicted digit of each image."""
    rows = zip(evaluation.labels.tolist(), evaluation.predictions.tolist())
    write(name, _as_csv(["actual", "predicted"], rows))


def _as_csv(header: list[str], rows: Iterable[Sequence]) -> str:
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([header, *rows])
    return table.getvalue()


def _save(net: nn.Module, dataset: data.Dataset, folder: Path) -> None:
    """`net` as an MLflow model, with what a person needs who has an image and not this code: size, scale, ink."""
    import mlflow.pyfunc

    example = dataset.validation.images[:2].cpu()
    with tempfile.TemporaryDirectory() as temporary:
        program = Path(temporary) / Path(PROGRAM).parent.name
        program.mkdir()
        (program / "model.pt2").write_bytes(export(net, example))
        with torch.no_grad():
            signature = mlflow.models.infer_signature(example.numpy(), net(example).numpy())
        # bright ink, its longer side 20 of the 28 pixels and its mass in the middle: so MNIST was made
        expects = {"mean": dataset.mean, "deviation": dataset.deviation, "ink": "bright", "ink_side": 20}
        mlflow.pyfunc.save_model(
            folder, loader_module="mlflow.pytorch", data_path=str(program), signature=signature, metadata=expects,
            model_config={"device": "cpu"}, pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
        )
