"""Are one model's errors smaller than another's for the same people, or could that be chance?"""

from scipy.stats import ttest_rel

from nbproof.notebook import section


def better(new: list[dict], old: list[dict]) -> dict:
    """Whether the squared errors of `new` are smaller by a paired t test at `compare.confidence`.

    Rows {"actual", "predicted"} of the same people in the same order; returns `better`, `why` (a
    sentence) and `p`.
    """
    errors = [[(float(row["actual"]) - float(row["predicted"])) ** 2 for row in rows]
              for rows in (new, old)]
    smaller = sum(now < before for now, before in zip(*errors, strict=True))
    p = float(ttest_rel(*errors).pvalue) if errors[0] != errors[1] else 1.0
    why = (f"For {smaller} of {len(new)} people the error is smaller (paired t test of squared "
           f"errors: p = {p:.2g}).")
    is_better = sum(errors[0]) < sum(errors[1]) and p < 1 - section("compare").confidence
    return {"better": is_better, "why": why, "p": p}
