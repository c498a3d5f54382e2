"""Models as outputs: whole, the same bytes each time, and still what MLflow loads."""

import functools
import json

import pytest

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest
from nbproof.notebook.models import save_model, save_onnx
from nbproof.serve.model import OnnxModel
from nbproof.tracking.versions import ModelVersion

WORDS, KINDS = ["good day", "bad day", "good night", "bad night"], ["g", "b", "g", "b"]


def test_the_same_model_gives_the_same_bytes_and_mlflow_loads_them(project, monkeypatch, capfd):
    """The second one lies at other places in memory, by which skops names what it writes."""
    import mlflow.sklearn
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    trained = []  # both stay, so that they cannot lie at the same places
    for name in ("x", "y"):
        model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(WORDS, KINDS)
        trained.append(model)
        signature = mlflow.models.infer_signature(np.array(WORDS), model.predict(WORDS))
        save = functools.partial(mlflow.sklearn.save_model, model, signature=signature,
                                 pip_requirements=["scikit-learn==1.9.1+local"])
        saved = save_model(name, save)
    assert digest(saved) == digest(project / "models" / "x") and capfd.readouterr() == ("", "")
    assert {path.name for path in saved.iterdir()} == {"MLmodel", "model.skops", "requirements.txt"}
    assert "scikit-learn==1.9.1" in (saved / "requirements.txt").read_text().split()
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    model = mlflow.pyfunc.load_model(str(saved))
    assert list(model.predict(np.array(["good good", "bad bad"]))) == ["g", "b"]


@pytest.mark.parametrize("kind", ["classifier", "regression", "net"])
def test_onnx_predicts_as_the_model_does_and_has_the_same_bytes(project, kind):
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression, Ridge

    cases = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Softmax(1))
    model, example, labels, predict = {
        "classifier": (LogisticRegression(), cases, (), "predict_proba"),
        "regression": (Ridge(), cases, (), "predict"),
        "net": (net, torch.tensor(cases), ("a", "b"), "forward")}[kind]
    if kind != "net":
        model.fit(cases, cases[:, 0] > 0)
    path = save_onnx("x", model, example, labels)
    content = path.read_bytes()
    assert save_onnx("x", model, example, labels).read_bytes() == content
    loaded = OnnxModel(ModelVersion("files", "x"), content, b"{}", 1)
    expected = np.asarray(getattr(model, predict)(example[:9]).tolist())
    outputs = loaded.run({loaded.inputs[0].name: cases[:9]}).outputs
    assert np.allclose(outputs.reshape(expected.shape), expected, atol=1e-5)
    assert loaded.labels == {"classifier": ["False", "True"], "net": ["a", "b"]}.get(kind, [])


def test_what_varies_is_left_out_and_without_a_signature_the_old_model_stays(project):
    def save(folder):
        folder.mkdir()
        (folder / "conda.yaml").write_text("python: 3.99\n")
        (folder / "MLmodel").write_text(json.dumps(described))

    described = {"flavors": {}, "signature": {"inputs": "[]"}, "run_id": "7"}
    model = save_model("x", save)
    before = digest(model)
    assert [path.name for path in model.iterdir()] == ["MLmodel"]
    assert "run_id" not in (model / "MLmodel").read_text()
    described = {"flavors": {}}
    with pytest.raises(UserError, match="models/x is no MLflow model with a signature"):
        save_model("x", save)
    assert digest(model) == before and [path.name for path in model.parent.iterdir()] == ["x"]
