"""Is one model better than another on the same images, and could that be chance? Needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from nbproof.notebook import section


@dataclass(frozen=True)
class McNemar:
    """The images that only one of two models gets right; how likely so uneven a split is if both are equally good."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first_right: Sequence[bool], second_right: Sequence[bool]) -> McNemar:
    """McNemar's exact test on the same images (Q. McNemar, Psychometrika 12, 1947); p is 1 if the two never differ."""
    pairs = list(zip(first_right, second_right, strict=True))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    differing = only_first + only_second
    return McNemar(only_first, only_second, float(binomtest(only_first, differing).pvalue) if differing else 1.0)


def better(new: list[dict], old: list[dict]) -> dict:
    """Whether the answers `new` are better than `old`, and not by chance at the level `compare.confidence`.

    Rows {"actual", "predicted"} of the same images in the same order; returns `better`, `why` (a sentence) and `p`.
    """
    test = mcnemar(*([row["predicted"] == row["actual"] for row in rows] for rows in (new, old)))
    if not test.only_first + test.only_second:
        return {"better": False, "why": f"Both are right on the same of the {len(new):,} images.", "p": test.p_value}
    why = (
        f"Of {len(new):,} images, {test.only_first} are newly right and {test.only_second} newly wrong; if both models "
        f"were equally good, so uneven a split would have probability {test.p_value:.2g} (McNemar's exact test)."
    )
    real = test.only_first > test.only_second and test.p_value < 1 - section("compare").confidence
    return {"better": real, "why": why, "p": test.p_value}
