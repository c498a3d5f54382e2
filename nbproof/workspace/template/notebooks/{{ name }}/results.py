"""How a model is evaluated, and the outputs that it writes."""

import json
from collections.abc import Iterable

import mlflow.sklearn
import pandas as pd
import sklearn
import skops

from nbproof.notebook import models, source, write

Rows = tuple[pd.DataFrame, pd.Series]
TRUSTED = ["sklearn.tree._tree.Tree"]  # skops reads the nodes of a tree only where they are trusted


def answers(model, rows: Rows) -> pd.DataFrame:
    """Return the model's predictions beside the truth: the columns `actual` and `predicted`."""
    inputs, actual = rows
    return pd.DataFrame({"actual": actual.to_numpy(), "predicted": model.predict(inputs)})


def accuracy(said: pd.DataFrame) -> float:
    """Return the share of right predictions."""
    return round(float((said.actual == said.predicted).mean()), 6)


def learning_curve(model, train: Rows, validation: Rows, steps: int = 5) -> pd.DataFrame:
    """Return the accuracy on `validation` after training on more and more rows.

    The columns are `rows` and `accuracy`.
    """
    inputs, actual = train
    sizes = [len(inputs) * step // steps for step in range(1, steps + 1)]
    trained = (sklearn.clone(model).fit(inputs[:size], actual[:size]) for size in sizes)
    reached = [accuracy(answers(model, validation)) for model in trained]
    return pd.DataFrame({"rows": sizes, "accuracy": reached})


def keep(name: str, model, said: pd.DataFrame, curve: pd.DataFrame, inputs: pd.DataFrame) -> dict:
    """Write the model, its predictions, its curve and its metrics; return the metrics."""
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
    """Return the predictions of the models `names`, the best model first."""
    said = {name: pd.read_csv(source(f"models/{name}.csv")) for name in names}
    return dict(sorted(said.items(), key=lambda each: -accuracy(each[1])))


def load(name: str):
    """Return the model that `keep` wrote."""
    return mlflow.sklearn.load_model(str(source(f"models/{name}")))
