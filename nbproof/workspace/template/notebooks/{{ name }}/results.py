"""What a model is judged by and what it leaves behind."""

import json
from collections.abc import Iterable

import mlflow.sklearn
import pandas as pd
import sklearn
import skops

from nbproof.notebook import models, source, write

Rows = tuple[pd.DataFrame, pd.Series]
TRUSTED = ["sklearn.tree._tree.Tree"]  # what skops reads from a file only if it is told to: the nodes of a tree


def answers(model, rows: Rows) -> pd.DataFrame:
    """What the model says for each row, beside what is right: the columns `actual` and `predicted`."""
    inputs, actual = rows
    return pd.DataFrame({"actual": actual.to_numpy(), "predicted": model.predict(inputs)})


def accuracy(said: pd.DataFrame) -> float:
    """The share of right answers."""
    return round(float((said.actual == said.predicted).mean()), 6)


def learning_curve(model, train: Rows, validation: Rows, steps: int = 5) -> pd.DataFrame:
    """The accuracy on `validation` of the model learnt from more and more rows: the columns `rows` and `accuracy`."""
    inputs, actual = train
    sizes = [len(inputs) * step // steps for step in range(1, steps + 1)]
    learnt = (sklearn.clone(model).fit(inputs[:size], actual[:size]) for size in sizes)
    return pd.DataFrame({"rows": sizes, "accuracy": [accuracy(answers(each, validation)) for each in learnt]})


def keep(name: str, model, said: pd.DataFrame, curve: pd.DataFrame, inputs: pd.DataFrame) -> dict:
    """Write the model, its answers, its curve and its numbers as outputs; the numbers."""
    signature = mlflow.models.infer_signature(inputs, said.predicted.to_numpy())
    pins = [f"scikit-learn=={sklearn.__version__}", f"skops=={skops.__version__}"]
    models.save_model(name, lambda folder: mlflow.sklearn.save_model(
        model, folder, signature=signature, pip_requirements=pins, serialization_format="skops",
        skops_trusted_types=TRUSTED,
    ))
    write(f"models/{name}.csv", said.to_csv(index=False, lineterminator="\n"))
    write(f"metrics/{name}.csv", curve.to_csv(index=False, lineterminator="\n"))
    metrics = {"accuracy": accuracy(said)}
    write(f"metrics/{name}.json", json.dumps(metrics, indent=1) + "\n")
    return metrics


def kept(names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The answers of the models `names`, the best model first."""
    said = {name: pd.read_csv(source(f"models/{name}.csv")) for name in names}
    return dict(sorted(said.items(), key=lambda each: -accuracy(each[1])))


def load(name: str):
    """The model that `keep` wrote."""
    return mlflow.sklearn.load_model(str(source(f"models/{name}")))
