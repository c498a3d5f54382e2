"""Models as outputs: whole, the same bytes each time, and still what MLflow loads."""

import os
import subprocess
import sys

import pytest
from small_training import tiny_project

SCRIPT = """
import sys
spread = [object() for _ in range(int(sys.argv[1]))]  # so that objects lie at other places in memory
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from nbproof.notebook.models import save_model
import mlflow.sklearn
words, kinds = ["good day", "bad day", "good night", "bad night"], ["g", "b", "g", "b"]
model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(words, kinds)
signature = mlflow.models.infer_signature(np.array(words), model.predict(words))
pins = ["scikit-learn==1.9.1+local"]
save_model("x", lambda folder: mlflow.sklearn.save_model(model, folder, signature=signature, pip_requirements=pins))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    from nbproof.notebook import files

    folder = tiny_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    files.root.cache_clear()
    monkeypatch.setenv("NBPROOF_OUTPUT", str(folder))
    yield folder
    files.root.cache_clear()


def test_two_processes_save_the_same_bytes_and_mlflow_loads_them(project, tmp_path, monkeypatch):
    from nbproof.notebook.files import digest

    saved = []
    for spread in ("1", "100000"):
        variables = os.environ | {"PYTHONHASHSEED": "0", "NBPROOF_OUTPUT": str(tmp_path / spread)}
        command = [sys.executable, "-c", SCRIPT, spread]
        done = subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        saved.append(tmp_path / spread / "models/x")
    assert digest(saved[0]) == digest(saved[1])
    assert {path.name for path in saved[0].iterdir()} == {"MLmodel", "model.skops", "requirements.txt"}
    assert "scikit-learn==1.9.1\n" in (saved[0] / "requirements.txt").read_text() + "\n"
    import mlflow
    import numpy as np

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    assert list(mlflow.pyfunc.load_model(str(saved[0])).predict(np.array(["good good", "bad bad"]))) == ["g", "b"]


def test_a_logged_model_can_be_registered_and_loaded_from_there(project, tmp_path, monkeypatch):
    import mlflow
    import mlflow.pyfunc

    from nbproof.notebook.models import save_model

    class Double(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input):
            return model_input * 2

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    import numpy as np

    signature = mlflow.models.infer_signature(np.array([[1.0]]), np.array([[2.0]]))
    pins = {"signature": signature, "pip_requirements": ["numpy"]}
    folder = save_model("x", lambda folder: mlflow.pyfunc.save_model(folder, python_model=Double(), **pins))
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(store)
    client = mlflow.MlflowClient(store)
    run = client.create_run(client.create_experiment("e", (tmp_path / "there").as_uri())).info.run_id
    client.log_artifacts(run, str(folder), "model")
    version = mlflow.register_model(f"runs:/{run}/model", "double").version
    assert mlflow.pyfunc.load_model(f"models:/double/{version}").predict(np.array([[3.0]])).tolist() == [[6.0]]


@pytest.mark.parametrize("written, words", [
    ({}, "wrote no file MLmodel"), ({"MLmodel": "flavors: {}\n"}, "has no signature"),
])
def test_what_is_no_model_is_refused_and_the_old_one_stays(project, written, words):
    from nbproof.notebook.errors import UserError
    from nbproof.notebook.models import save_model

    old = project / "models/x/MLmodel"
    old.parent.mkdir(parents=True)
    old.write_text("old")

    def save(folder):
        folder.mkdir()
        for name, content in written.items():
            (folder / name).write_text(content)

    with pytest.raises(UserError, match=words):
        save_model("x", save)
    assert old.read_text() == "old" and [path.name for path in (project / "models").iterdir()] == ["x"]
