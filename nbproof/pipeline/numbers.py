"""Numbers as people read them: the same format in the terminal, on pages and in reviews."""

import math


def is_number(value: object) -> bool:
    """Return whether `value` is an int or a float, NaN and infinity too, and no bool."""
    return type(value) in (int, float)


def number(value: object) -> str:
    """Return a metric as text: a count with separators, else four decimals; – for None.

    Very small numbers keep two digits, very large ones lose their decimals.
    """
    if not is_number(value):
        return "–" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"about 10^{math.log10(abs(value)):.0f}"
    if not math.isfinite(value):
        return {"nan": "NaN"}.get(str(value), str(value))
    if value and not 0.0005 <= abs(value) < 1e15:
        return f"{value:.2g}"
    return f"{value:,.4f}" if abs(value) < 1000 else f"{value:,.1f}"


def change(before: object, now: object) -> str:
    """Return `now` - `before` with its sign; empty where one of them is no finite number."""
    if not (is_number(before) and is_number(now)) or not (abs(before) < 1e300 > abs(now)):
        return ""
    difference = now - before
    return "0" if not difference else f"{'+' if difference > 0 else '−'}{number(abs(difference))}"


def count(amount: int, noun: str) -> str:
    """Return an amount with its noun: `1 case`, `10,000 cases`."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def is_of_test(key: str) -> bool:
    """Return whether a metric is of the test data, by its name: `test_...` (docs/contract.md).

    Nobody should choose by it, so only main shows it: not a review, not the log of its job.
    """
    return key.rpartition(".")[2].startswith("test_")
