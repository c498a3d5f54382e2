"""Curves: as GitHub draws them in a comment, and as SVG on the page."""

import io

import pandas as pd

from nbproof.pipeline import config

POINTS = 12  # of a curve in a comment


def curve(given: object, before: str | None, now: str | None) -> dict:
    """Return what the templates draw of a CSV file that dvc.yaml plots with the properties `given`,
    by default the project's metric by the first column; {} where that is no curve of numbers.

    It has the names `x` and `y`, the `points` of the base and the branch on the same axes in a box
    of 400 x 120, and at most POINTS values (`few` at `places`) for a comment, where a shorter curve
    is extended with its last value; `is_same` where the branch's curve is the base's."""
    tables = {"base": _table(before), "branch": _table(now)}
    given, columns = given if isinstance(given, dict) else {}, [*tables["branch"].columns, "", ""]
    key = config.load().metric.key
    x = str(given.get("x") or columns[0])
    y = str(given.get("y") or (key if key in columns else columns[1]))
    curves = pd.DataFrame({side: _numbers(table, x, y) for side, table in tables.items()
                           if {x, y} <= {*table.columns} and x != y})
    if given.get("template") or "branch" not in curves or len(curves) < 2:
        return {}
    low, high = float(curves.min(axis=None)), float(curves.max(axis=None))
    last, most = len(curves) - 1, min(POINTS, len(curves))
    points = {side: " ".join(f"{400 * at / last:.1f},{120 * (high - y) / (high - low or 1):.1f}"
                             for at, y in enumerate(curves[side]) if pd.notna(y))
              for side in curves}
    few = curves.ffill().bfill().iloc[[round(at * last / (most - 1)) for at in range(most)]]
    return {"x": x, "y": y, "points": points, "low": low, "high": high,
            "places": few.index.tolist(), "few": few.to_dict("list"),
            "is_same": points.get("base") == points["branch"]}


def _numbers(table: pd.DataFrame, x: str, y: str) -> pd.Series:
    """Return y by x, without the rows that are no finite numbers."""
    numbers = table[[x, y]].apply(pd.to_numeric, errors="coerce")
    return numbers[(numbers.abs() < 1e15).all(axis=1)].groupby(x)[y].last()


def _table(content: str | None) -> pd.DataFrame:
    """Return a CSV file as text, cell by cell; empty where it is none."""
    try:
        return pd.read_csv(io.StringIO(content or ""), dtype=str, keep_default_na=False,
                           index_col=False)
    except ValueError:  # pandas' own errors are of this kind
        return pd.DataFrame()


def short(value: float) -> str:
    """Return a number as Mermaid reads it, without an exponent."""
    return f"{value:.9f}".rstrip("0").rstrip(".")
