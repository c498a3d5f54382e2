"""Curves, confusion and regression in what GitHub itself draws: Mermaid charts and tables."""

import io
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pandas as pd

from nbproof.review.markdown import code, decimal, label, table

BASE, BRANCH = "#8c959f", "#0969da"  # grey and blue, readable on GitHub's light and dark pages
POINTS, LABELS, ROWS, CLASSES, GROUPS = 50, 12, 25, 20, 10


def rows(content: str | None) -> pd.DataFrame:
    """A CSV file as text, cell by cell; empty where it is none."""
    try:
        return pd.read_csv(io.StringIO(content or ""), dtype=str, keep_default_na=False, index_col=False)
    except ValueError:  # pandas' own errors are of this kind
        return pd.DataFrame()


def numbers(values: pd.Series) -> pd.Series | None:
    """The values as finite numbers that can be drawn; None where one is none."""
    found = pd.to_numeric(values, errors="coerce")
    return found.astype(float) if (found.abs() < 1e15).all() else None


@dataclass(frozen=True)
class Plot:
    """A CSV file that dvc.yaml plots: its columns `x` and `y`, its rows on the branch and in the base."""

    path: str
    template: str
    x: str
    y: str
    now: pd.DataFrame
    before: pd.DataFrame

    @property
    def is_answers(self) -> bool:
        return self.template in ("confusion", "scatter")

    @property
    def columns(self) -> tuple[str, str]:
        """The columns of truth and answer: by name, else y is the truth of a confusion matrix and x of a scatter."""
        straight = self.template == "scatter" and self.x != "predicted" and self.y != "actual"
        return (self.x, self.y) if straight or self.x == "actual" or self.y == "predicted" else (self.y, self.x)

    def answers(self, side: pd.DataFrame) -> list[dict]:
        """The rows as hooks get them, actual and predicted as text; nothing where a column or a value is missing."""
        if not {*self.columns} <= {*side.columns}:
            return []
        found = side[[*self.columns]].set_axis(["actual", "predicted"], axis=1)
        return found.to_dict("records") if (found != "").all(axis=None) else []

    def curves(self) -> pd.DataFrame:
        """y by x, a column each for the base (if it has this curve) and the branch; empty if y is no finite number."""
        sides = {}
        for name, side in (("base", self.before), ("branch", self.now)):
            y = numbers(side[self.y]) if {self.x, self.y} <= {*side.columns} else None
            if y is not None and len(y):
                x = numbers(side[self.x])
                sides[name] = y.set_axis(side[self.x] if x is None else x).groupby(level=0, sort=False).last()
        found = pd.concat(sides, axis=1, sort=False) if "branch" in sides else pd.DataFrame()
        return found.sort_index() if found.index.dtype == float else found


def short(value: object) -> str:
    """A number as Mermaid reads it, without an exponent; other text as it is."""
    return format(Decimal(f"{value:.6g}"), "f") if isinstance(value, float) else str(value)


def place(x: object) -> str:
    """A place on the x axis, for Markdown."""
    return short(x) if isinstance(x, float) else code(x, 40)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` indices below `count`, the first and the last among them."""
    return [*range(count)] if count <= most else [round(step * (count - 1) / (most - 1)) for step in range(most)]


def chart(title: str, x: str, y: str, curves: pd.DataFrame) -> str:
    """A Mermaid chart of the curves, the base's below the branch's; empty where the branch's would have no length."""
    if curves["branch"].count() < 2:
        return ""
    curves = curves.ffill().bfill()  # where a curve has no value it goes on flat
    steps = np.diff(curves.index) if curves.index.dtype == float else []
    if len(curves) > LABELS and len(steps) and np.allclose(steps, steps[0]):
        curves = curves.iloc[evenly(len(curves), POINTS)]
        axis = f"{short(curves.index[0])} --> {short(curves.index[-1])}"
    else:  # names of single places: between few numbers Mermaid would put fractions
        curves = curves.iloc[evenly(len(curves), LABELS)]
        axis = f"[{', '.join(label(short(place)) for place in curves.index)}]"
    low, high = float(curves.min(axis=None)), float(curves.max(axis=None))
    margin = (high - low) * 0.05 or 0.001
    drawn = "\n".join(f"    line [{', '.join(map(short, curves[side].tolist()))}]" for side in curves)
    palette = f"{BASE}, {BRANCH}" if len(curves.columns) == 2 else BRANCH
    return (
        f'```mermaid\n%%{{init: {{"themeVariables": {{"xyChart": {{"plotColorPalette": "{palette}"}}}}}}}}%%\n'
        f"xychart-beta\n    title {label(title)}\n    x-axis {label(x)} {axis}\n"
        f"    y-axis {label(y.replace('_', ' '))} {short(low - margin)} --> {short(high + margin)}\n{drawn}\n```"
    )


def curve_table(axis: str, curves: pd.DataFrame) -> str:
    """The same numbers as a table; of a long curve some places, the last among them."""
    curves = curves.iloc[evenly(len(curves), ROWS), ::-1]
    listed = [[place(x), *("" if pd.isna(value) else decimal(value) for value in values)]
              for x, *values in curves.itertuples()]
    return table([code(axis, 40), *curves.columns], listed, "r" * (1 + len(curves.columns)))


def confusion(answers: list[dict]) -> str:
    """How often each true class (rows) was predicted as which; of many classes, the most frequent mistakes."""
    counts = pd.DataFrame(answers).value_counts().to_dict()
    classes = sorted({each for pair in counts for each in pair}, key=lambda each: (len(each), each))
    if len(classes) > CLASSES:
        mistakes = [(pair, count) for pair, count in counts.items() if pair[0] != pair[1]][:CLASSES]
        listed = [[code(true), code(said), str(count)] for (true, said), count in mistakes]
        return table(["true", "predicted", "how often"], listed, "llr")
    cells = {(true, said): counts.get((true, said), "·") for true in classes for said in classes}
    listed = [[f"**{code(true, 20)}**", *(f"**{cells[true, said]}**" if true == said else str(cells[true, said])
                                          for said in classes)] for true in classes]
    return table(["true ╲ predicted", *(code(each, 20) for each in classes)], listed, "r" * (1 + len(classes)))


def regression(title: str, answers: list[dict], plot: Plot) -> str:
    """Mean answer and mean truth in groups of equal size, by rising truth; empty where one is no finite number."""
    sides = {side: numbers(pd.Series([each[side] for each in answers])) for side in ("actual", "predicted")}
    if len(answers) < 2 or any(side is None for side in sides.values()):
        return ""
    values = pd.DataFrame(sides).sort_values("actual", ignore_index=True)
    group = values.index * min(GROUPS, len(values)) // len(values) + 1.0
    found = values.groupby(group).agg(cases=("actual", "size"), low=("actual", "min"), high=("actual", "max"),
                                      base=("actual", "mean"), branch=("predicted", "mean"))
    true, said = (code(each, 40) for each in plot.columns)
    header = ["group", "cases", f"{true} from", "to", f"mean {true}", f"mean {said}"]
    listed = [[short(place), str(cases), *(f"{each:.5g}" for each in means)]
              for place, cases, *means in found.itertuples()]
    drawn = chart(title, f"groups by {plot.columns[0]}", plot.columns[1], found[["base", "branch"]])
    return (f"Groups of equal size by {true}: blue is the mean of {said}, grey that of {true}.\n\n{drawn}\n\n"
            f"{table(header, listed, 'r' * 6)}")
