"""Models on disk: the same bytes each time, the same answers, and no code that runs when one is loaded."""

import csv
import io
import json
import pickle
import zipfile

import pytest
import torch
from torch import nn

from mnist import comparison, data, models, training
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(864, 10)
    ).eval()


@pytest.fixture
def stored(project):
    """A net and its data set, stored as models/x with invented numbers for its curve."""
    images = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    split = data.Split(images, torch.arange(40) % 10)
    dataset = data.Dataset("digits", "0" * 64, split, split, 0.25, 0.5)
    made, curve = net(), [{"epoch": 1, "train_loss": 0.1234567, "validation_accuracy": 0.5}]
    models.store("x", made, dataset, curve, training.evaluate(made, split))
    return made, dataset, curve


def test_the_same_answers_from_every_file(stored, project):
    made, dataset, curve = stored
    judged, images = training.evaluate(made, dataset.validation), dataset.validation.images
    loaded = models.load("x")
    for count in (1, 2, 7):
        with torch.no_grad():
            assert torch.allclose(loaded(images[:count]), made(images[:count]), atol=1e-5)
    candidate = comparison.candidate("x")
    assert torch.equal(candidate.validation.probabilities, judged.probabilities) and candidate.history == curve
    with (project / "models" / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["predicted"]) for row in rows] == judged.predictions.tolist()
    assert [int(row["actual"]) for row in rows] == judged.labels.tolist()
    metrics = json.loads((project / "metrics" / "x.json").read_text())
    assert metrics["validation_accuracy"] == round(judged.accuracy, 6) and metrics["epochs"] == 1
    assert metrics["parameters"] == candidate.parameters == 6 * 26 + 12 + 8650
    assert (project / "metrics" / "x.csv").read_text() == "epoch,train_loss,validation_accuracy\n1,0.123457,0.5\n"


def test_mlflow_loads_it_with_pickle_forbidden(stored, project, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    made, dataset, _ = stored
    asked = mlflow.pyfunc.load_model(str(project / "models" / "x"))
    images = dataset.validation.images[:3]
    assert torch.allclose(torch.from_numpy(asked.predict(images.numpy())), made(images), atol=1e-5)
    assert asked.metadata.metadata == {"mean": 0.25, "deviation": 0.5, "ink": "bright", "ink_side": 20}


def test_the_same_model_is_the_same_bytes(stored, project):
    _, dataset, curve = stored
    first = {name: digest(project / "models" / name) for name in ("x", "x.csv", "x.safetensors")}
    again = net()
    models.store("x", again, dataset, curve, training.evaluate(again, dataset.validation))
    assert first == {name: digest(project / "models" / name) for name in first}
    archive = zipfile.ZipFile(project / "models" / "x" / models.PROGRAM)
    contents = b"".join(archive.read(name) for name in archive.namelist())
    assert b"/torch/" not in contents and str(project).encode() not in contents  # no folder of this machine


class Evil:
    """Says so in a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def pickled(mark) -> bytes:
    content = io.BytesIO()
    torch.save(((Evil(mark),), {}), content)
    return content.getvalue()


def as_pickle(config: str, **changed) -> str:
    """The description of an archive's tensors, the first of them changed."""
    entries = json.loads(config)
    first = next(iter(entries["config"].values()), {"path_name": "tensor_0", "is_param": False, "tensor_meta": None})
    entries["config"] = {"a": {**first, "use_pickle": True, **changed}}
    return json.dumps(entries)


CONFIG = "archive/data/{0}/model_{0}_config.json"


@pytest.mark.parametrize(
    "change",
    [
        lambda parts, evil: {"archive/data/sample_inputs/model.pt": evil},
        lambda parts, evil: {CONFIG.format("weights"): as_pickle(parts[CONFIG.format("weights")]),
                             "archive/data/weights/weight_0": evil},
        lambda parts, evil: {CONFIG.format("constants"): as_pickle(parts[CONFIG.format("constants")]),
                             "archive/data/constants/tensor_0": evil},
        lambda parts, evil: {CONFIG.format("constants"): as_pickle(
            parts[CONFIG.format("constants")], path_name="opaque_obj_0", use_pickle=False),
            "archive/data/constants/opaque_obj_0": pickle.dumps(Evil("mark"))},
        lambda parts, evil: {"archive/data/weights/model.pt": evil},
        lambda parts, evil: {"archive/data/aotinductor/model/x.so": b"\x7fELF"},
        lambda parts, evil: {"archive/extra/note.txt": b"anything else"},
        lambda parts, evil: {CONFIG.format("weights"): "[]"},
    ],
    ids=["example", "weight", "constant", "object", "old weights", "library", "extra", "no description"],
)
def test_an_archive_with_anything_else_is_refused_before_torch_reads_it(stored, project, monkeypatch, change):
    path, mark = project / "models" / "x" / models.PROGRAM, project / "mark"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (parts | change(parts, pickled(mark))).items():
            archive.writestr(name, content)
    monkeypatch.setattr(torch.export, "load", lambda _: pytest.fail("torch has read it"))
    with pytest.raises(UserError, match="could run code when it is read"):
        models.load("x")
    assert not mark.exists()


def test_the_crafted_archive_would_run_code(stored, project):
    """What the test above protects from is real: torch itself unpickles the example."""
    path, mark = project / "models" / "x" / models.PROGRAM, project / "mark"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (parts | {"archive/data/sample_inputs/model.pt": pickled(mark)}).items():
            archive.writestr(name, content)
    torch.export.load(str(path))
    assert mark.exists()


def test_a_damaged_archive_is_refused(stored, project):
    path = project / "models" / "x" / models.PROGRAM
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="is damaged"):
        models.load("x")


def test_store_and_restore(project):
    tensors = {"b": torch.arange(6).view(2, 3).t(), "a": torch.ones(2, dtype=torch.uint8)}
    data.store("data/x.safetensors", tensors, source="digits", mean=0.5)
    first = (project / "data" / "x.safetensors").read_bytes()
    data.store("data/x.safetensors", tensors, mean=0.5, source="digits")
    restored, facts = data.restore("data/x.safetensors")
    assert first == (project / "data" / "x.safetensors").read_bytes()
    assert facts == {"source": "digits", "mean": 0.5}
    assert all(torch.equal(restored[key], tensors[key]) for key in tensors)
