"""What the models are given of a swing."""

from pathlib import Path

import pandas as pd

from nbproof.notebook import output_folder, source

TARGET = "period"


def of(file: Path, degrees: list[int]) -> pd.DataFrame:
    """The powers of the angle in radians, a column each, and the period in seconds."""
    swings = pd.read_csv(file)
    columns = {f"power_{degree}": (swings.angle**degree).round(6) for degree in sorted(degrees)}
    return pd.DataFrame(columns).assign(**{TARGET: swings.period})


def split(table: pd.DataFrame, share: float, seed: int) -> dict[str, pd.DataFrame]:
    """The rows for learning, choosing and testing."""
    shuffled = table.sample(frac=1, random_state=seed)
    first, last = round(len(table) * (1 - 2 * share)), round(len(table) * (1 - share))
    return {"train": shuffled[:first], "validation": shuffled[first:last], "test": shuffled[last:]}


def keep(parts: dict[str, pd.DataFrame]) -> None:
    """Write the output data/features, a folder with a file for each part."""
    folder = output_folder("data/features")
    for name, rows in parts.items():
        rows.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def load(name: str) -> tuple[pd.DataFrame, pd.Series]:
    """The inputs and the answers of data/features/NAME.csv."""
    rows = pd.read_csv(source("data/features") / f"{name}.csv")
    return rows.drop(columns=TARGET), rows[TARGET]
