"""The sentences: how they are read, split and kept."""

import pandas as pd

from nbproof.notebook import source, write

TOPICS = ("cooking", "sport", "travel", "weather")


def read() -> pd.DataFrame:
    """120 sentences, a row each: `text` and `topic`."""
    return pd.read_csv(source("sentences.csv"))


def split(table: pd.DataFrame, share: float, seed: int) -> dict[str, pd.DataFrame]:
    """The rows for learning, choosing and testing; `share` of each topic is in each of the last two."""
    place = table.sample(frac=1, random_state=seed).groupby("topic").cumcount().sort_index()
    count = table.groupby("topic").text.transform("size") * share
    test, validation = place < count, (place >= count) & (place < 2 * count)
    return {"train": table[~test & ~validation], "validation": table[validation], "test": table[test]}


def keep(name: str, rows: pd.DataFrame) -> None:
    """Write the output data/NAME.csv."""
    write(f"data/{name}.csv", rows.to_csv(index=False, lineterminator="\n"))


def load(name: str) -> tuple[pd.DataFrame, pd.Series]:
    """The inputs, a table with the column `text`, and the topics of data/NAME.csv."""
    rows = pd.read_csv(source(f"data/{name}.csv"))
    return rows[["text"]], rows.topic
