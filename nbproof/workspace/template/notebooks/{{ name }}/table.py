"""The table: how it is read, split and kept. For data of your own, change `read` and `TARGET`."""

import pandas as pd
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

from nbproof.notebook import source, write

TARGET = "grape"  # the column with the class; all others are numbers, without gaps


def read() -> pd.DataFrame:
    """Return 178 wines, a row each: 13 measurements, and the grape.

    Data: M. Forina et al., Vitis 25, 1986, as scikit-learn has them.
    """
    wines = load_wine(as_frame=True)
    grapes = ("Barolo", "Grignolino", "Barbera")
    return wines.data.assign(**{TARGET: [grapes[number] for number in wines.target]})


def split(
    table: pd.DataFrame, validation: float, test: float, seed: int
) -> dict[str, pd.DataFrame]:
    """Return training, validation and test rows, with the classes as frequent as in the table."""
    rest, last = train_test_split(table, test_size=test, random_state=seed, stratify=table[TARGET])
    share = validation / (1 - test)
    train, chosen = train_test_split(
        rest, test_size=share, random_state=seed, stratify=rest[TARGET])
    return {"train": train, "validation": chosen, "test": last}


def keep(name: str, rows: pd.DataFrame) -> None:
    """Write the output data/NAME.csv."""
    write(f"data/{name}.csv", rows.to_csv(index=False, lineterminator="\n"))


def load(name: str) -> tuple[pd.DataFrame, pd.Series]:
    """Return the inputs and the classes of data/NAME.csv."""
    rows = pd.read_csv(source(f"data/{name}.csv"))
    return rows.drop(columns=TARGET), rows[TARGET]
