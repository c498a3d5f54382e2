"""Markdown tables, folds, and numbers as the report writes them."""

import math

from pipeline.report.safe import code

ALIGN = {"l": ":--", "r": "--:"}


def table(header: list[str], rows: list[list[str]], align: str) -> str:
    """A table; the cells are Markdown that is safe already, `align` has an l or r a column."""
    lines = [header, [ALIGN[each] for each in align], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fold(summary: str, body: str) -> str:
    """A fold that is closed at first; `summary` is HTML that is safe already."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def is_number(value: object) -> bool:
    """Whether `value` is a finite number of a size that can be printed."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 10**300 and math.isfinite(value)


def decimal(value: object) -> str:
    """A metric with four decimals where it is a fraction; what is no number as code."""
    return f"{value:.4f}" if is_number(value) and abs(value) < 10 else shown(value)


def shown(value: object) -> str:
    """Any value of params.yaml or a metrics file; a dash for none."""
    if value is None:
        return "–"
    if is_number(value):
        short = f"{value:,}" if isinstance(value, int) and abs(value) < 10**15 else f"{value:.6g}"
        return short if math.isclose(float(short.replace(",", "")), value, rel_tol=1e-9) else f"{value:.12g}"  # two values must not look the same
    return code(value, 60)


def change(before: object, now: object, digits: str = ".4f") -> str:
    """`now` - `before` with its sign; empty where one of them is no number."""
    if not (is_number(before) and is_number(now)):
        return ""
    return "0" if now == before else f"{now - before:+{digits if abs(now - before) < 10**6 else '.4g'}}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
