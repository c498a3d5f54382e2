"""MLflow stores and a trained project for tests, made without training."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

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
def trained(tmp_path, inside, empty) -> Path:
    """A project as a run leaves it, in which this process works: `near` is its champion."""
    folder = tmp_path / "project"
    for name in ("metrics", "notebooks", ".dvc/tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "project.yaml").write_text(PROJECT)
    (folder / "params.yaml").write_text("data: {source: table}\n")
    (folder / "notebooks" / "judge.py").write_text(JUDGE)
    train(folder, near=0.5, far=2.5)
    shutil.copy(empty, folder / "mlflow.db")
    return inside(folder)


def train(folder: Path, data: str = "1", **rmse: float) -> None:
    """Write what the stages of the models write, and a dvc.lock; the first is the champion."""
    stages = {}
    for name, value in rmse.items():
        model = folder / "models" / name
        model.mkdir(parents=True, exist_ok=True)
        (model / "MLmodel").write_text(f"signature: {{inputs: '[]'}}\nname: {name} {value}\n")
        answers = [f"{case},{case if case > value else 'NA'}" for case in range(4)]
        model.with_name(f"{name}.csv").write_text("\n".join(["actual,predicted", *answers]))
        (folder / "metrics" / f"{name}.json").write_text(json.dumps({"rmse": value}))
        md5 = hashlib.md5((model / "MLmodel").read_bytes()).hexdigest()
        stages[f"train@{name}"] = {
            "cmd": "x", "deps": [{"path": "data/table.csv", "md5": data}],
            "outs": [{"path": f"models/{name}", "md5": md5}, {"path": f"metrics/{name}.json"}]}
    (folder / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    champion = next(iter(rmse))
    compared = {"champion": champion, "rmse": rmse[champion], "test_rmse": 0.5}
    (folder / "metrics" / "compare.json").write_text(json.dumps(compared))
