"""What a model is judged by and what it leaves behind."""

import json
from collections.abc import Iterable

import cloudpickle
import mlflow.sklearn
import pandas as pd
import sklearn
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score

from nbproof.notebook import models, source, write


def words(most: int | None = None) -> ColumnTransformer:
    """Counts of words in the column `text`, rare words weighted up; of the `most` frequent words, if it is given."""
    return ColumnTransformer([("words", TfidfVectorizer(analyzer=str.split, max_features=most), "text")])


def answers(model, rows: tuple[pd.DataFrame, pd.Series]) -> pd.DataFrame:
    """What the model says for each sentence, beside what is true: the columns `actual` and `predicted`."""
    inputs, actual = rows
    return pd.DataFrame({"actual": actual.to_numpy(), "predicted": model.predict(inputs)})


def macro_f1(said: pd.DataFrame) -> float:
    """F1 of each topic, and the mean of them."""
    return round(float(f1_score(said.actual, said.predicted, average="macro", zero_division=0)), 6)


def keep(name: str, model, said: pd.DataFrame, curve: list[dict] | None = None) -> dict:
    """Write the model, its answers, its curve if it has one, and its number as outputs; the number."""
    example = pd.DataFrame({"text": ["a sentence"]})
    signature = mlflow.models.infer_signature(example, said.predicted.to_numpy())
    pins = [f"scikit-learn=={sklearn.__version__}", f"cloudpickle=={cloudpickle.__version__}"]
    models.save_model(name, lambda folder: mlflow.sklearn.save_model(
        model, folder, signature=signature, pip_requirements=pins, serialization_format="cloudpickle",
    ))
    write(f"models/{name}.csv", said.to_csv(index=False, lineterminator="\n"))
    if curve:
        write(f"metrics/{name}.csv", pd.DataFrame(curve).to_csv(index=False, lineterminator="\n"))
    metrics = {"macro_f1": macro_f1(said)}
    write(f"metrics/{name}.json", json.dumps(metrics, indent=1) + "\n")
    return metrics


def kept(names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The answers of the models `names`, the best model first."""
    said = {name: pd.read_csv(source(f"models/{name}.csv")) for name in names}
    return dict(sorted(said.items(), key=lambda each: -macro_f1(each[1])))


def load(name: str):
    """The model that `keep` wrote."""
    return mlflow.sklearn.load_model(str(source(f"models/{name}")))
