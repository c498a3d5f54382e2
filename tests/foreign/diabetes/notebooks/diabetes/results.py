"""What a model is judged by and what it leaves behind."""

import json
from collections.abc import Iterable

import cloudpickle
import mlflow.sklearn
import pandas as pd
import sklearn

from nbproof.notebook import models, source, write


def answers(model, rows: tuple[pd.DataFrame, pd.Series]) -> pd.DataFrame:
    """Return the columns `actual` and `predicted`, a row a person."""
    inputs, actual = rows
    return pd.DataFrame({"actual": actual.to_numpy(), "predicted": model.predict(inputs).round(3)})


def rmse(said: pd.DataFrame) -> float:
    """The root mean squared error."""
    return round(float(((said.actual - said.predicted) ** 2).mean() ** 0.5), 4)


def keep(name: str, model, said: pd.DataFrame, inputs: pd.DataFrame) -> dict:
    """Write the model, its answers and its numbers as outputs; the numbers."""
    signature = mlflow.models.infer_signature(inputs, said.predicted.to_numpy())
    pins = [f"scikit-learn=={sklearn.__version__}", f"cloudpickle=={cloudpickle.__version__}"]
    models.save_model(name, lambda folder: mlflow.sklearn.save_model(
        model, folder, signature=signature, pip_requirements=pins,
        serialization_format="cloudpickle",
    ))
    write(f"models/{name}.csv", said.to_csv(index=False, lineterminator="\n"))
    mean_error = round(float((said.predicted - said.actual).mean()), 4)
    metrics = {"rmse": rmse(said), "mean_error": mean_error}
    write(f"metrics/{name}.json", json.dumps(metrics, indent=1) + "\n")
    return metrics


def kept(names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The answers of the models `names`, the best model first."""
    said = {name: pd.read_csv(source(f"models/{name}.csv")) for name in names}
    return dict(sorted(said.items(), key=lambda each: rmse(each[1])))


def load(name: str):
    """The model that `keep` wrote."""
    return mlflow.sklearn.load_model(str(source(f"models/{name}")))
