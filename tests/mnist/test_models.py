"""Models on disk: the same bytes each time, the same predictions, and no code that runs."""

import io
import json
import math
import pickle
import zipfile

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mnist import models, training
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest


@pytest.fixture
def stored(small, project):
    """A net, stored as models/x with the validation predictions and an invented curve."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 5, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
                        nn.Dropout(0.1), nn.Linear(864, 10)).eval()
    found = training.predict(net, small.validation)
    curve = [{"epoch": 1, "train_loss": 0.1234567, "validation_accuracy": 0.5}]
    return net, found, models.store("x", net, small, curve, found)


def test_the_same_predictions_from_every_file(stored, small, project, monkeypatch):
    import mlflow

    net, found, metrics = stored
    images, loaded = small.validation.normalised(slice(7)), models.load("x")
    with torch.no_grad():
        for count in (1, 2, 7):
            assert torch.allclose(loaded(images[:count]), net(images[:count]), atol=1e-5)
    (candidate,) = models.candidates()
    assert torch.equal(candidate.validation.probabilities, found.probabilities)
    table = pd.read_csv(project / "models" / "x.csv")
    assert table.predicted.tolist() == found.predictions.tolist()
    assert table.actual.tolist() == found.labels.tolist()
    assert json.loads((project / "metrics" / "x.json").read_text()) == metrics
    assert metrics["parameters"] == candidate.parameters == 6 * 26 + 12 + 8650
    curve = "epoch,train_loss,validation_accuracy\n1,0.123457,0.5\n"
    assert (project / "metrics" / "x.csv").read_text() == curve

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    model = mlflow.pyfunc.load_model(str(project / "models" / "x"))
    assert torch.allclose(torch.from_numpy(model.predict(images.numpy())), net(images), atol=1e-5)
    assert model.metadata.metadata == {
        "mean": 0.15, "deviation": 0.28, "ink": "bright", "ink_side": 20}


def test_the_same_model_is_the_same_bytes(stored, small, project):
    net, found, _ = stored
    files = [project / "models" / name for name in ("x", "x.csv", "x.safetensors")]
    first = list(map(digest, files))
    models.store("x", net, small, [{"epoch": 1, "train_loss": 0.1234567,
                                    "validation_accuracy": 0.5}], found)
    assert first == list(map(digest, files))
    with zipfile.ZipFile(project / "models" / "x" / models.PROGRAM) as archive:
        contents = b"".join(map(archive.read, archive.namelist()))
    assert b"/torch/" not in contents and str(project).encode() not in contents


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


CONFIG = "archive/data/{0}/model_{0}_config.json"
EXAMPLE = "archive/data/sample_inputs/model.pt"


def config(parts: dict, kind: str, **changed) -> dict:
    """The description of an archive's tensors, the first of them changed."""
    entries = json.loads(parts[CONFIG.format(kind)])
    first = {"path_name": "tensor_0", "is_param": False, "tensor_meta": None, "use_pickle": True}
    first |= next(iter(entries["config"].values()), {})
    entries["config"] = {"a": first | {"use_pickle": True} | changed}
    return {CONFIG.format(kind): json.dumps(entries)}


@pytest.mark.parametrize("change", [
    lambda parts, evil: {EXAMPLE: evil},
    lambda parts, evil: config(parts, "weights") | {"archive/data/weights/weight_0": evil},
    lambda parts, evil: config(parts, "constants") | {"archive/data/constants/tensor_0": evil},
    lambda parts, evil: config(parts, "constants", path_name="opaque_obj_0", use_pickle=False)
    | {"archive/data/constants/opaque_obj_0": pickle.dumps(Evil("mark"))},
    lambda parts, evil: {"archive/data/weights/model.pt": evil},
    lambda parts, evil: {"archive/data/aotinductor/model/x.so": b"\x7fELF"},
    lambda parts, evil: {"archive/extra/note.txt": b"anything else"},
    lambda parts, evil: {CONFIG.format("weights"): "[]"},
], ids=["example", "weight", "constant", "object", "old-weights", "library", "extra", "none"])
def test_an_archive_with_anything_else_is_refused(stored, project, monkeypatch, change, request):
    """Before torch reads it. What it is protected from is real: torch unpickles the example."""
    path, mark, evil = project / "models" / "x" / models.PROGRAM, project / "mark", io.BytesIO()
    torch.save(((Evil(mark),), {}), evil)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (parts | change(parts, evil.getvalue())).items():
            archive.writestr(name, content)
    with monkeypatch.context() as patch:
        patch.setattr(torch.export, "load", lambda _: pytest.fail("torch has read it"))
        with pytest.raises(UserError, match="could run code when it is read"):
            models.load("x")
    assert not mark.exists()
    if "example" in request.node.name:
        torch.export.load(str(path))
        assert mark.exists()


def test_a_damaged_archive_is_refused(stored, project):
    path = project / "models" / "x" / models.PROGRAM
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="is damaged"):
        models.load("x")


def test_five_views_are_those_of_grid_sample(small):
    """The prediction is the geometric mean of five."""
    images, seen = small.train.normalised(slice(9)), []

    class Net(nn.Module):
        def forward(self, view):
            seen.append(view)
            return view.flatten(1)[:, 300:310]

    logits = models.TestTimeAugmentation(Net())(images)
    assert len(seen) == 5 and torch.equal(seen[0], images)
    for view, (right, down, degrees) in zip(seen[1:], models.VIEWS):
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        back = torch.tensor([[cos, -sin], [sin, cos]])
        move = torch.cat([back, -back @ torch.tensor([[right / 14], [down / 14]])], 1)
        grid = F.affine_grid(move.expand(9, 2, 3), images.shape, align_corners=False)
        expected = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        assert (view - expected).abs().max() < 2e-3 and (view - images).abs().max() > 0.5
    mean = torch.stack([view.flatten(1)[:, 300:310].softmax(1) for view in seen]).log().mean(0)
    assert torch.allclose(logits, mean, atol=1e-6)
