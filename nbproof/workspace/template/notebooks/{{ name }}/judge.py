"""Is one model better than another on the same rows, or could that be chance?"""

from scipy.stats import binomtest

from nbproof.notebook import section


def better(new: list[dict], old: list[dict]) -> dict:
    """Compare two models' answers by McNemar's exact test (Psychometrika 12, 1947).

    Both are rows {"actual", "predicted"} of the same cases in the same order. Return `better` (at
    the level `compare.confidence` of params.yaml), `why` (a sentence) and `p`.
    """
    right = [[row["actual"] == row["predicted"] for row in rows] for rows in (new, old)]
    pairs = list(zip(*right, strict=True))
    wins, losses = pairs.count((True, False)), pairs.count((False, True))
    p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    why = (f"Of {len(pairs)} rows, {wins} are newly right and {losses} newly wrong "
           f"(McNemar's exact test: p = {p:.2g}).")
    return {"better": wins > losses and p < 1 - section("compare").confidence, "why": why, "p": p}
