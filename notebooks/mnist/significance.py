"""Whether one model is better than another on the same images, and not by chance."""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from nbproof.notebook import section


@dataclass(frozen=True)
class McNemar:
    """The images that only one of two models gets right, and the p-value of so uneven a split."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first_right: Sequence[bool], second_right: Sequence[bool]) -> McNemar:
    """Run McNemar's exact test on the same images (Q. McNemar, Psychometrika 12, 1947)."""
    pairs = list(zip(first_right, second_right, strict=True))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    return McNemar(only_first, only_second, p_value)


def better(new: list[dict], old: list[dict]) -> dict:
    """Return whether the predictions `new` are better than `old`: `better`, `why` (a sentence), `p`
    and the `level` below which p counts, 1 less the parameter `compare.confidence`.

    Both are rows {"actual", "predicted"} of the same images in the same order.
    """
    level = 1 - section("compare").confidence
    right = ([row["predicted"] == row["actual"] for row in rows] for rows in (new, old))
    test = mcnemar(*right)
    if not test.only_first + test.only_second:
        why = f"Both are right on the same of the {len(new):,} images."
        return {"better": False, "why": why, "p": test.p_value, "level": level}
    why = (
        f"Of {len(new):,} images, {test.only_first} are newly right and {test.only_second} newly "
        "wrong. If both models were equally good, a split at least as uneven would have the "
        f"probability {test.p_value:.2g} (McNemar's exact test).")
    better_now = test.p_value < level and test.only_first > test.only_second
    return {"better": better_now, "why": why, "p": test.p_value, "level": level}
