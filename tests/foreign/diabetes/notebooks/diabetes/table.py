"""The table: how it is read, split and kept."""

import pandas as pd

from nbproof.notebook import source, write

TARGET = "progression"


def read() -> pd.DataFrame:
    """Return 442 people, a row each: 10 measurements, and the progression a year later.

    They are of B. Efron et al., Annals of Statistics 32, 2004, and come with scikit-learn.
    """
    from sklearn.datasets import load_diabetes  # a second, which the models need not spend

    people = load_diabetes(as_frame=True, scaled=False)
    return people.data.assign(**{TARGET: people.target})


def split(table: pd.DataFrame, validation: float, test: float,
          seed: int) -> dict[str, pd.DataFrame]:
    """Return the rows for learning, choosing and testing."""
    shuffled = table.sample(frac=1, random_state=seed)
    first, last = round(len(table) * (1 - validation - test)), round(len(table) * (1 - test))
    return {"train": shuffled[:first], "validation": shuffled[first:last], "test": shuffled[last:]}


def keep(name: str, rows: pd.DataFrame) -> None:
    """Write the output data/NAME.csv."""
    write(f"data/{name}.csv", rows.to_csv(index=False, lineterminator="\n"))


def load(name: str) -> tuple[pd.DataFrame, pd.Series]:
    """The inputs and the answers of data/NAME.csv."""
    rows = pd.read_csv(source(f"data/{name}.csv"))
    return rows.drop(columns=TARGET), rows[TARGET]
