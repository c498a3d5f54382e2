"""MLflow stores, runs and a trained project for tests, made without training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from matplotlib.figure import Figure

from nbproof.notebook import tracking
from nbproof.notebook.files import digest, output_folder

PROJECT = "name: small\nmetric: {key: rmse, goal: min}\ncompare: compare\ndata: data.source\n"
JUDGE = """\
def better(new, old):
    wins = sum(a["predicted"] == a["actual"] != b["predicted"] for a, b in zip(new, old))
    return {"better": wins > 1, "why": f"it is newly right in {wins} of {len(new)} cases."}
"""


@pytest.fixture
def empty(made_once) -> Path:
    """An MLflow database with nothing in it, which takes MLflow seconds to make."""
    import mlflow

    def make(folder: Path) -> None:
        folder.mkdir()
        mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").delete_experiment("0")

    return made_once("store", make) / "mlflow.db"


@pytest.fixture
def project(tmp_path, inside, empty, monkeypatch) -> Path:
    """A project without notebooks, in which this process works as a stage does."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "project.yaml").write_text("name: tiny\nmetric: {key: accuracy, goal: max}\n")
    shutil.copy(empty, folder / "mlflow.db")
    monkeypatch.setenv("NBPROOF_OUTPUT", str(folder))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return inside(folder)


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """The sentences of the runs."""
    sentences = []
    monkeypatch.setattr(tracking, "say", lambda message: sentences.append(message))
    return sentences


def log_run(between: Callable[[], object] = lambda: None) -> tracking.Run:
    """Log a run with all that one may have, and call `between` after the first of two steps."""
    run = tracking.start("x", {"lr": 0.1, "epochs": 2}, data=("table", "ab" * 32),
                         tags={"device": "cpu"})
    for epoch in (1, 2):
        run.next_copy = 0.0  # it is due
        run.log(epoch, {"accuracy": epoch / 10, "broken": float("nan"), "loss": float("inf")})
        if epoch == 1:
            between()
    run.figure("line", Figure())
    (output_folder("models/x") / "MLmodel").write_text("a model")
    run.model("x")
    run.finish({"accuracy": 0.2, "parameters": 7850, "rmse": numpy.float32(1.5), "data": "table"})
    return run


def runs_in(store: str, experiment: str = "tiny") -> list:
    """Return the runs of an experiment in the store at an address, the oldest first."""
    client = tracking.client(store)
    known = client.get_experiment_by_name(experiment)
    return client.search_runs([known.experiment_id], order_by=["start_time"]) if known else []


def whole_run(store: str, experiment: str = "tiny"):
    """Assert that the experiment has one run, that of `log_run` as a whole, and return it."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client, (run,) = tracking.client(store), runs_in(store, experiment)
    metrics, tags = run.data.metrics, run.data.tags
    assert run.info.status == "FINISHED" and run.data.params == {"lr": "0.1", "epochs": "2"}
    history = client.get_metric_history(run.info.run_id, "accuracy")
    assert sorted((row.step, row.value) for row in history) == [(1, 0.1), (2, 0.2)]
    assert len(client.get_metric_history(run.info.run_id, "broken")) == 2, "NaN, too"
    assert (metrics["parameters"], metrics["rmse"]) == (7850, 1.5)
    # MLflow would store 1.797e308 for what is infinite, without a word.
    assert "loss" not in metrics and tags["loss"] == "inf at step 2"
    facts = {"notebook": "x", "device": "cpu", "data": "table", "data_digest": "ab" * 32}
    assert facts.items() <= tags.items()
    # By address: by run, MLflow 3 asks for logged models too, which 2.x servers do not know.
    artifacts = get_artifact_repository(run.info.artifact_uri, tracking_uri=client.tracking_uri)
    assert Path(artifacts.download_artifacts("figures/line.png")).stat().st_size
    assert Path(artifacts.download_artifacts("model/MLmodel")).read_text() == "a model"
    return run


@pytest.fixture
def trained(project, inside) -> Path:
    """The project as a run leaves it: `near` is its champion."""
    for name in ("metrics", "notebooks", ".dvc/tmp"):
        (project / name).mkdir(parents=True)
    (project / "project.yaml").write_text(PROJECT)
    (project / "params.yaml").write_text("data: {source: table}\n")
    (project / "notebooks" / "judge.py").write_text(JUDGE)
    train(project, near=0.5, far=2.5)
    return inside(project)


def train(folder: Path, **rmse: float) -> None:
    """Write what the stages of the models write, and a dvc.lock; the first is the champion."""
    lock = "schema: '2.0'\nstages:\n"
    for name, value in rmse.items():
        model = folder / "models" / name
        model.mkdir(parents=True, exist_ok=True)
        (model / "MLmodel").write_text(f"signature: {{inputs: '[]'}}\nname: {name} {value}\n")
        answers = [f"{case},{case if case > value else 'NA'}" for case in range(4)]
        model.with_name(f"{name}.csv").write_text("\n".join(["actual,predicted", *answers]))
        (folder / "metrics" / f"{name}.json").write_text(json.dumps({"rmse": value}))
        lock += (f"  train@{name}:\n    cmd: x\n    outs:\n    - path: models/{name}\n"
                 f"      hash: md5\n      md5: {digest(model)[:32]}\n")
    (folder / "dvc.lock").write_text(lock)
    champion = next(iter(rmse))
    compared = {"champion": champion, "rmse": rmse[champion], "test_rmse": 0.5}
    (folder / "metrics" / "compare.json").write_text(json.dumps(compared))
