"""Trained models on disk: programs that run no code when they are loaded, predictions, metrics."""

import io
import json
import math
import re
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from mnist import data
from mnist.augment import SIDE
from mnist.data import Dataset
from mnist.evaluation import Predictions
from mnist.significance import McNemar
from nbproof.notebook import require, section, show, source, write
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest
from nbproof.notebook.models import save_model

PROGRAM = "data/program/model.pt2"  # in the folder of the MLflow model
EXAMPLE = (torch.zeros(0, 1, 28, 28),), {}  # a call without any image
VIEWS = ((0, 1, 8), (0, -1, -8), (1, 0, -8), (-1, 0, 8))  # pixels right, pixels down, degrees
TENSOR = r"(weight|tensor)_\d+"
PLAIN_RECORD = re.compile(  # what torch reads without unpickling it
    r"models/model\.json|archive_(format|version)|byteorder|\.data/(version|serialization_id)|"
    rf"data/(weights|constants)/{TENSOR}")


class TestTimeAugmentation(nn.Module):
    """A net that predicts from five views of an image: as it is, and as VIEWS move it.

    Returns the mean of the logarithms of the five predictions [N, 10], as logits.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        neighbours, weights = zip(*(view(*moves) for moves in VIEWS))
        self.register_buffer("neighbours", torch.stack(neighbours, 1).flatten())
        self.register_buffer("weights", torch.stack(weights, 1))  # [4 neighbours, 4 views, pixels]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.flatten(1).index_select(1, self.neighbours)
        values = pixels.view(-1, *self.weights.shape) * self.weights
        views = values[:, 0] + values[:, 1] + values[:, 2] + values[:, 3]
        views = views.view(-1, len(VIEWS), SIDE, SIDE)
        logits = [self.net(seen) for seen in (images, *views.split(1, 1))]
        return torch.stack([each.log_softmax(1) for each in logits]).mean(0)


def view(right: int, down: int, degrees: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each pixel of a view its four neighbours in the image, and their weights.

    Both [4, pixels]; bilinear, the border extended. Rounded, to be the same on every processor.
    """
    cos, sin, middle = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), SIDE - 1
    axis = torch.arange(SIDE, dtype=torch.float64) - middle / 2
    y, x = (axis - down)[:, None], (axis - right)[None]
    y, x = ((value + middle / 2).clamp(0, middle).round(decimals=4).flatten()
            for value in (cos * y + sin * x, cos * x - sin * y))
    top, left = y.long().clamp_max(middle - 1), x.long().clamp_max(middle - 1)
    dy, dx, corner = y - top, x - left, top * SIDE + left
    weights = [(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx]
    return (torch.stack([corner, corner + 1, corner + SIDE, corner + SIDE + 1]),
            torch.stack(weights).float())


def count_parameters(net: nn.Module) -> int:
    """Return how many numbers training can change."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


@torch.no_grad()
def layers(net: nn.Sequential, split: data.Split) -> str:
    """Return a Markdown table: each layer, its output's shape for one image, its parameters."""
    rows, values = ["| layer | output | parameters |", "|:--|:--|--:|"], split.normalised(slice(2))
    for layer in net.eval():
        values = layer(values)
        shape = " × ".join(map(str, values.shape[1:]))
        rows.append(f"| {type(layer).__name__} | {shape} | {count_parameters(layer):,} |")
    return "\n".join([*rows, f"| **all** | | **{count_parameters(net):,}** |"])


def require_floor(name: str, validation: Predictions, dataset: Dataset) -> None:
    """Show the validation accuracy; fail the stage if it is below the model's floor."""
    floor = dataset.source.floors.get(name, 0.0)  # a new model has none yet
    accuracy = f"accuracy {validation.accuracy:.4f}"
    require(validation.accuracy >= floor, f"{name} has a validation {accuracy}, below its floor of "
            f"{floor} for {dataset.source.name} in notebooks/mnist/sources.yaml")
    show(f"**Validation {accuracy}**, {validation.wrong:,} of {len(validation):,} wrong, loss "
         f"{validation.loss:.4f}. The floor is {floor}.")


def export(net: nn.Module, example: torch.Tensor) -> bytes:
    """Return `net` as a torch.export archive for any number of images: JSON and raw bytes.

    torch pickles one record, the example call, EXAMPLE in every archive: MLflow wants to have it.
    """
    net = net.cpu().to(memory_format=torch.contiguous_format).eval()  # the layout that is stored
    shapes = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(net, (example[:2].cpu(),), dynamic_shapes=shapes)
    program.example_inputs = EXAMPLE
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    archive = io.BytesIO()  # a file's name would be in the archive
    torch.export.save(program, archive)
    return archive.getvalue()


def load(name: str) -> nn.Module:
    """Return the model `name`. UserError if its file holds a pickle, which could run code."""
    return program(f"models/{name}/{PROGRAM}")


def program(name: str) -> nn.Module:
    """Return the program in the file `name`, ready to be called. UserError as in `load`."""
    loaded = torch.export.load(checked(name)).module()
    return loaded.to(memory_format=torch.channels_last)  # convolutions are twice as fast


def checked(name: str) -> io.BytesIO:
    """Return a copy of the archive `name` that has only records such as `export` writes."""
    safe = io.BytesIO()
    try:
        with zipfile.ZipFile(source(name)) as archive, zipfile.ZipFile(safe, "w") as copy:
            for record in archive.infolist():
                content = archive.read(record)
                if not is_plain(record.filename.partition("/")[2], content):
                    raise UserError(
                        f"{name} is not loaded: its part {record.filename} could run code when it "
                        "is read. Remove the model and run its stage again.")
                copy.writestr(record.filename, content)
    except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # RuntimeError: encrypted
        raise UserError(f"{name} is damaged ({error}). Remove the model and run its stage again."
                        ) from None
    safe.seek(0)
    return safe


def is_plain(name: str, content: bytes) -> bool:
    """Return whether torch unpickles nothing of the record `name`, or only EXAMPLE."""
    if name == "data/sample_inputs/model.pt":
        expected = io.BytesIO()
        torch.save(EXAMPLE, expected)
        return content == expected.getvalue()
    if not re.fullmatch(r"data/(weights|constants)/model_\1_config\.json", name):
        return bool(PLAIN_RECORD.fullmatch(name))
    try:
        entries = json.loads(content)["config"].values()
        return all(entry["use_pickle"] is False and re.fullmatch(TENSOR, entry["path_name"])
                   for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def store(name: str, net: nn.Module, dataset: Dataset, history: list[dict],
          validation: Predictions) -> dict:
    """Write all outputs of a model's stage (dvc.yaml lists them), and return its metrics."""
    metrics = {
        "data": dataset.source.name, "validation_accuracy": round(validation.accuracy, 6),
        "validation_loss": round(validation.loss, 6), "parameters": count_parameters(net),
        "epochs": len(history),
    }
    save_model(name, lambda folder: save_mlflow(net, dataset, folder))
    store_predictions(f"models/{name}.csv", validation, dataset)
    tensors = {"probabilities": validation.probabilities, "labels": validation.labels}
    facts = {"history": history, "parameters": metrics["parameters"]}
    data.store(f"models/{name}.safetensors", tensors, **facts)
    write(f"metrics/{name}.csv", pd.DataFrame(history).round(6).to_csv(index=False))
    write(f"metrics/{name}.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def save_mlflow(net: nn.Module, dataset: Dataset, folder: Path) -> None:
    """Save `net` as an MLflow model, whose metadata say how an image must be prepared for it."""
    import mlflow.pyfunc

    example = dataset.validation.normalised(slice(2)).cpu()
    with tempfile.TemporaryDirectory() as temporary:
        program = Path(temporary) / Path(PROGRAM).parent.name
        program.mkdir()
        (program / "model.pt2").write_bytes(export(net, example))
        with torch.no_grad():
            signature = mlflow.models.infer_signature(example.numpy(), net(example).numpy())
        # Bright on black; the longer side of what is shown has `ink_side` of the 28 pixels.
        metadata = {"mean": dataset.train.mean, "deviation": dataset.train.deviation,
                    "ink": "bright", "ink_side": dataset.source.longer_side}
        mlflow.pyfunc.save_model(
            folder, loader_module="mlflow.pytorch", data_path=str(program), signature=signature,
            metadata=metadata, model_config={"device": "cpu"},
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"])


def store_predictions(name: str, predictions: Predictions, dataset: Dataset) -> None:
    """Write a CSV file with the actual and the predicted class of each image."""
    columns = {"actual": predictions.labels, "predicted": predictions.predictions}
    table = {name: [dataset.source.classes[i] for i in values] for name, values in columns.items()}
    write(name, pd.DataFrame(table).to_csv(index=False))


@dataclass(frozen=True)
class Candidate:
    """A trained model in a comparison: its size, its epochs, its validation predictions."""

    name: str
    parameters: int
    history: list[dict]
    validation: Predictions


def candidates() -> list[Candidate]:
    """Return the models of params.yaml, the champion first: by validation accuracy, then loss."""
    models = []
    for name in vars(section("models")):
        tensors, facts = data.restore(f"models/{name}.safetensors")
        predictions = Predictions(tensors["probabilities"], tensors["labels"])
        models.append(Candidate(name, facts["parameters"], facts["history"], predictions))
    return sorted(models, key=lambda model: (-model.validation.accuracy, model.validation.loss))


def store_comparison(run, dataset: Dataset, models: list[Candidate], lead: McNemar | None,
                     test: Predictions, collected: Predictions | None = None) -> None:
    """Write metrics/compare.json and metrics/confusion.csv, and log the same to the run."""
    champion, names = models[0], [model.name for model in models]
    result = {
        "data": dataset.source.name, "champion": champion.name,
        "validation_accuracy": round(champion.validation.accuracy, 6),
        "validation_loss": round(champion.validation.loss, 6),
        "runner_up": names[1] if lead else None,
        "lead_p_value": float(f"{lead.p_value:.6g}") if lead else None,
        "test_accuracy": round(test.accuracy, 6), "test_loss": round(test.loss, 6),
    }
    if collected:
        result["collected_accuracy"] = round(collected.accuracy, 6)
    write("metrics/compare.json", json.dumps(result, indent=2) + "\n")
    store_predictions("metrics/confusion.csv", champion.validation, dataset)
    digests = {f"model.{name}": digest(source(f"models/{name}")) for name in names}
    run.tag({"champion": champion.name} | digests)
    accuracies = {f"validation_accuracy.{each.name}": each.validation.accuracy for each in models}
    run.finish({"test_accuracy": test.accuracy} | accuracies)
