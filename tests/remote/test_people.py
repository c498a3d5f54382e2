"""Two people with one MLflow server and one store share all, and no secret is kept anywhere."""

import base64
import subprocess
from pathlib import Path

import boto3
import mlflow
import numpy
import pandas
import pytest
import servers
from mlflow.models import infer_signature
from portable_models import portable
from projects import commit, dvc, edit_params, results, said

from nbproof.pipeline import config
from nbproof.tracking import registry, versions
from nbproof.tracking.predict import predict

NET = """\
import mlflow
class Net(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input["x"] * 2
mlflow.models.set_model(Net())
"""
HOOKS = """\
import numpy
def prepare(paths, facts): return numpy.zeros((len(paths), 1, 28, 28), numpy.float32)
"""


@pytest.mark.parametrize("server", ["mlflow3", "mlflow2"])
def test_a_clone_without_models_predicts_with_the_servers_champion(
        server, request, trained, inside, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue(server))
    text = (trained / "project.yaml").read_text()
    (trained / "net.py").write_text(NET)
    mlflow.pyfunc.save_model(
        trained / "models/wide", python_model=str(trained / "net.py"), pip_requirements=[],
        signature=infer_signature(pandas.DataFrame({"x": [1.0]}), numpy.zeros(1)))
    (trained / "metrics/wide.json").write_text('{"rmse": 1.5}')
    portable(trained / "models/near.onnx", 3)
    (trained / "project.yaml").write_text(f"{text}hooks: {{better: judge:better}}\n")
    registry.promote("far")
    registry.promote()  # the hook reads the server's answers of far
    assert versions.current("champion").model == "near"
    registry.promote("wide")
    assert versions.current("previous").version == "2"

    alone = tmp_path / "alone"
    (alone / "notebooks").mkdir(parents=True)
    (alone / "notebooks/asking.py").write_text(HOOKS)
    (alone / "project.yaml").write_text(f"{text}pickle: true\n")
    inside(alone)
    Path("asked.csv").write_text("x\n10\n")
    predict([Path("asked.csv")])
    assert capsys.readouterr().out.endswith("prediction_0\nasked.csv,1,20.0\n")
    registry.rollback()
    (alone / "project.yaml").write_text(f"{text}hooks: {{prepare: asking:prepare}}\n")
    config.load.cache_clear()
    predict([Path("asked.csv")])
    printed = capsys.readouterr()
    assert "0.9" in printed.out and "the champion, version 2: near, trained with" in printed.err


def test_two_clones_share_everything_and_no_secret_is_kept(finished, bucket, tmp_path):
    printed, clone = [], tmp_path / "clone"

    def call(folder: Path, *words: str, **options) -> str:
        printed.append(said(folder, *words, **bucket.credentials | options))
        return printed[-1]

    (tmp_path / "server").mkdir()
    with servers.mlflow_server(tmp_path / "server") as address:
        where = ("--data", "s3://dvc/cycle", "--endpoint", bucket.endpoint)
        answer = call(finished, "remote", "--tracking", address, *where)
        assert "Tracking server responds.\nDVC remote responds." in answer
        for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"):
            wrong = call(finished, "remote", code=1, **{name: "wrong"})
            assert wrong.count("gives no usable response") == 1 and name in wrong
        assert "registered champion now (version 1" in call(finished, "promote")
        call(finished, "push")
        commit(finished)
        subprocess.run(["git", "clone", "-q", finished, clone], check=True)
        call(clone, "pull")
        assert results(clone) == results(finished)
        assert "up to date" in dvc(clone, "status").stdout
        assert "is the registered champion already" in call(clone, "promote")
        edit_params(clone, lambda content: content["models"]["far"].update(step=1))
        assert "far is the registered champion now (version 2" in call(clone, "run")
        call(clone, "push")
        commit(clone)
        subprocess.run(["git", "pull", "-q", clone, "HEAD"], cwd=finished, check=True)
        call(finished, "pull")
        assert results(clone) == results(finished)
    uri = "http://someone:planted-uri-password@127.0.0.1:9"
    call(finished, "promote", "near", code=2, MLFLOW_TRACKING_URI=uri)
    call(finished, "predict", "project.yaml", code=2, MLFLOW_TRACKING_URI=uri)

    account = base64.b64encode(f"{servers.USER}:{servers.PASSWORD}".encode())
    secrets = [servers.PASSWORD, bucket.credentials["AWS_SECRET_ACCESS_KEY"], "planted-uri-passw"]
    forms = [account, *(secret.encode() for secret in secrets)]
    git = ["git", "cat-file", "--batch-all-objects", "--batch"]
    contents = [subprocess.check_output(git, cwd=clone), "".join(printed).encode()]
    stored = [*(tmp_path / "server" / "artifacts").rglob("*"), tmp_path / "server" / "store.db"]
    files = [path for path in (*finished.rglob("*"), *clone.rglob("*"), *stored) if path.is_file()]
    contents += [path.read_bytes() for path in files if "objects" not in path.parts]
    assert len(contents) > 100
    assert not [form for form in forms for content in contents if form in content]


def test_a_damaged_file_of_the_store_is_not_taken(finished, bucket, tmp_path):
    keys, clone = bucket.credentials, tmp_path / "clone"
    said(finished, "remote", "--data", "s3://dvc/damaged", "--endpoint", bucket.endpoint, **keys)
    commit(finished)
    said(finished, "push", **keys)
    store = boto3.client("s3", endpoint_url=bucket.endpoint, region_name="us-east-1",
                         **{name.lower(): value for name, value in keys.items()})
    files = store.list_objects_v2(Bucket="dvc", Prefix="damaged/")["Contents"]
    damaged = next(file["Key"] for file in files if not file["Key"].endswith(".dir"))
    store.put_object(Bucket="dvc", Key=damaged, Body=b"altered")
    subprocess.run(["git", "clone", "-q", finished, clone], check=True)
    assert "nbproof pull again does the rest" in said(clone, "pull", code=1, **keys)
    assert results(clone).items() < results(finished).items(), "what came is right"
