"""Curves and confusion matrices: as GitHub draws them in a comment, and as SVG on the page."""

import io
from dataclasses import dataclass

import pandas as pd

from nbproof.pipeline import config
from nbproof.pipeline.numbers import number

POINTS, CLASSES = 12, 20  # that are shown at most


@dataclass(frozen=True)
class Plot:
    """A table that dvc.yaml plots: y by x, its rows in the base and here."""

    path: str
    template: str
    x: str
    y: str
    before: pd.DataFrame
    now: pd.DataFrame

    def curves(self) -> pd.DataFrame:
        """Return y by x, a column for each side that has this curve; empty if y is no number."""
        sides = {}
        for name, side in (("base", self.before), ("branch", self.now)):
            if {self.x, self.y} <= {*side.columns}:
                x, y = (pd.to_numeric(side[name], errors="coerce") for name in (self.x, self.y))
                y = y.set_axis(side[self.x] if x.isna().any() else x)
                if not (y.abs() < 1e15).all():
                    return pd.DataFrame()
                sides[name] = y.groupby(level=0, sort=False).last()
        curves = pd.concat(sides, axis=1) if "branch" in sides else pd.DataFrame()
        return curves.sort_index() if pd.api.types.is_numeric_dtype(curves.index) else curves


def plot_of(path: str, given: object, before: str | None, now: str | None) -> Plot:
    """Return the plot of a file that dvc.yaml gives the properties `given`, by default a curve of
    the project's metric by the first column."""
    old, new = _table(before), _table(now)
    given, columns = given if isinstance(given, dict) else {}, [*new.columns, "", ""]
    key = config.load().metric.key
    y = given.get("y") or (key if key in columns else columns[1])
    return Plot(path, str(given.get("template", "")), str(given.get("x") or columns[0]), str(y),
                old, new)


def _table(content: str | None) -> pd.DataFrame:
    """Return a CSV file as text, cell by cell; empty where it is none."""
    try:
        return pd.read_csv(io.StringIO(content or ""), dtype=str, keep_default_na=False,
                           index_col=False)
    except ValueError:  # pandas' own errors are of this kind
        return pd.DataFrame()


def ends(plot: Plot) -> str:
    """Return the last values of the curves, the branch's first; empty where there is none."""
    curves = plot.curves()
    values = [number(float(curves[side].dropna().iloc[-1])) for side in reversed(curves.columns)]
    return ", in the base ".join(values)


def drawing(plot: Plot) -> dict:
    """Return what the templates draw, {} where there is no curve: the `points` of each side on the
    same axes in a box of 400 x 120, and at most POINTS values (`few` at `places`) for a comment. A
    shorter curve is extended with its last value there."""
    curves = plot.curves()
    if plot.template or len(curves) < 2:
        return {}
    low, high = float(curves.min(axis=None)), float(curves.max(axis=None))
    last, most = len(curves) - 1, min(POINTS, len(curves))
    points = {side: " ".join(f"{400 * at / last:.1f},{120 * (high - y) / (high - low or 1):.1f}"
                             for at, y in enumerate(curves[side]) if pd.notna(y))
              for side in curves}
    few = curves.ffill().bfill().iloc[[round(at * last / (most - 1)) for at in range(most)]]
    return {"points": points, "low": low, "high": high, "places": few.index.tolist(),
            "few": few.to_dict("list")}


def short(value: object) -> str:
    """Return a number as Mermaid reads it, without an exponent; other text as it is."""
    return f"{value:.9f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def confusion(plot: Plot) -> pd.DataFrame:
    """Return how often each true class (rows) was predicted as which; empty if not known."""
    truth, predicted = ((plot.x, plot.y) if plot.x == "actual" or plot.y == "predicted"
                        else (plot.y, plot.x))
    if not {truth, predicted} <= {*plot.now.columns}:
        return pd.DataFrame()
    counts = pd.crosstab(plot.now[truth], plot.now[predicted])
    classes = sorted({*counts.index, *counts.columns}, key=lambda name: (len(name), name))[:CLASSES]
    return counts.reindex(index=classes, columns=classes, fill_value=0)
