"""McNemar's test, as the comparison, the review and the registry use it."""

import math
import subprocess
import sys

import pytest
from projects import ROOT

from mnist import significance


def rows(right: str) -> list[dict]:
    """Predictions for as many images as there are characters, right where one is `x`."""
    return [{"actual": "3", "predicted": "3" if mark == "x" else "5"} for mark in right]


def test_mcnemar_is_exact():
    first, second = [True] * 10 + [False] * 5 + [True] * 7, [False] * 10 + [True] * 12
    test = significance.mcnemar(first, second)
    exact = 2 * sum(math.comb(15, k) for k in range(10, 16)) / 2**15  # 10 against 5
    assert (test.only_first, test.only_second) == (10, 5)
    assert test.p_value == pytest.approx(exact)
    assert significance.mcnemar([True, False], [True, False]).p_value == 1


@pytest.mark.parametrize("new, old, better", [
    ("xxxxxx.", "......x", False), ("xxxxxxxx.", "........x", True),
    ("........x", "xxxxxxxx.", False),
])
def test_better_needs_more_right_predictions_than_chance_gives(new, old, better, project):
    verdict = significance.better(rows(new), rows(old))
    counts = f"{new.count('x')} are newly right and {old.count('x')} newly wrong"
    assert verdict["better"] is better and 0 < verdict["p"] < 1 and counts in verdict["why"]
    (project / "params.yaml").write_text("compare: {confidence: 0.999}\n")
    assert not significance.better(rows(new), rows(old))["better"]


def test_the_same_predictions_are_not_better_and_other_images_are_an_error(project):
    same = significance.better(rows("x.x"), rows("x.x"))
    assert same == {"better": False, "p": 1.0, "level": pytest.approx(0.05),
                    "why": "Both are right on the same of the 3 images."}
    with pytest.raises(ValueError):
        significance.better(rows("xx"), rows("x"))


def test_the_hook_loads_without_torch_and_mlflow():
    script = ("import sys; import mnist.significance; "
              "assert not {'torch', 'mlflow'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", script], check=True,
                   env={"PYTHONPATH": f"{ROOT / 'notebooks'}:{ROOT}"})
