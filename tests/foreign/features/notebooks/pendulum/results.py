"""What a model is judged by and what it leaves behind."""

import json
from collections.abc import Iterable

import cloudpickle
import mlflow.sklearn
import pandas as pd
import sklearn

from nbproof.notebook import models, source, write

Rows = tuple[pd.DataFrame, pd.Series]


def answers(model, rows: Rows) -> pd.DataFrame:
    """What the model says for each swing, beside what is true: the columns `actual` and `predicted`."""
    inputs, actual = rows
    return pd.DataFrame({"actual": actual.to_numpy(), "predicted": model.predict(inputs).round(6)})


def r2(said: pd.DataFrame) -> float:
    """The share of the variance that is explained."""
    left = ((said.actual - said.predicted) ** 2).mean()
    return round(float(1 - left / said.actual.var(ddof=0)), 6)


def interval(said: pd.DataFrame, seed: int, times: int = 50) -> tuple[float, float]:
    """Where nine in ten of the R² lie if the swings are drawn again."""
    drawn = pd.Series([r2(said.sample(frac=1, replace=True, random_state=seed + each)) for each in range(times)])
    return float(drawn.quantile(0.05)), float(drawn.quantile(0.95))


def by_degree(model, train: Rows, validation: Rows) -> pd.DataFrame:
    """R² of the model with the first power, the first two powers, and so on: the columns `degree` and `r2`."""
    rows, names = [], list(train[0].columns)
    for count, name in enumerate(names, start=1):
        inputs, answer = train[0][names[:count]], train[1]
        said = answers(sklearn.clone(model).fit(inputs, answer), (validation[0][names[:count]], validation[1]))
        rows.append({"degree": int(name.removeprefix("power_")), "r2": r2(said)})
    return pd.DataFrame(rows)


def keep(name: str, model, said: pd.DataFrame, curve: pd.DataFrame, inputs: pd.DataFrame) -> dict:
    """Write the model, its answers, its curve and its number as outputs; the number."""
    signature = mlflow.models.infer_signature(inputs, said.predicted.to_numpy())
    pins = [f"scikit-learn=={sklearn.__version__}", f"cloudpickle=={cloudpickle.__version__}"]
    models.save_model(name, lambda folder: mlflow.sklearn.save_model(
        model, folder, signature=signature, pip_requirements=pins, serialization_format="cloudpickle",
    ))
    write(f"models/{name}.csv", said.to_csv(index=False, lineterminator="\n"))
    write(f"metrics/{name}.csv", curve.to_csv(index=False, lineterminator="\n"))
    metrics = {"r2": r2(said)}
    write(f"metrics/{name}.json", json.dumps(metrics, indent=1) + "\n")
    return metrics


def kept(names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The answers of the models `names`, the best model first."""
    said = {name: pd.read_csv(source(f"models/{name}.csv")) for name in names}
    return dict(sorted(said.items(), key=lambda each: -r2(each[1])))


def load(name: str):
    """The model that `keep` wrote."""
    return mlflow.sklearn.load_model(str(source(f"models/{name}")))
