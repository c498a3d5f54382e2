"""McNemar's test, as the comparison and the registry use it."""

import math
import subprocess
import sys

import pytest

from mnist import judge


def answers(right: str) -> list[dict]:
    """Answers to as many images as there are characters, right where the character is `x`."""
    return [{"actual": "3", "predicted": "3" if mark == "x" else "5"} for mark in right]


def test_mcnemar_is_exact():
    test = judge.mcnemar([True] * 10 + [False] * 5 + [True] * 7, [False] * 10 + [True] * 5 + [True] * 7)
    exact = 2 * sum(math.comb(15, k) for k in range(10, 16)) / 2**15  # 10 against 5, by the binomial formula
    assert (test.only_first, test.only_second) == (10, 5) and test.p_value == pytest.approx(exact)
    assert judge.mcnemar([True, False], [True, False]).p_value == 1


@pytest.mark.parametrize(
    "new, old, better",
    [("xxxxxx.", "......x", False), ("xxxxxxxx.", "........x", True), ("........x", "xxxxxxxx.", False)],
)
def test_better_needs_more_right_answers_than_chance_gives(new, old, better):
    verdict = judge.better(answers(new), answers(old))
    assert verdict["better"] is better and 0 < verdict["p"] < 1
    assert f"{new.count('x')} are newly right and {old.count('x')} newly wrong" in verdict["why"]


def test_the_level_is_that_of_the_comparison(project):
    (project / "params.yaml").write_text("compare: {confidence: 0.999}\n")
    assert not judge.better(answers("xxxxxxxx."), answers("........x"))["better"]


def test_the_same_answers_are_not_better():
    assert judge.better(answers("x.x"), answers("x.x")) == {
        "better": False, "why": "Both are right on the same of the 3 images.", "p": 1.0,
    }


def test_answers_to_other_questions_are_an_error():
    with pytest.raises(ValueError):
        judge.better(answers("xx"), answers("x"))


@pytest.mark.parametrize("module", ["judge", "ask"])
def test_a_hook_loads_without_torch_and_mlflow(module):
    script = f"import sys; import mnist.{module}; assert not {{'torch', 'mlflow'}} & set(sys.modules)"
    path = next(each for each in sys.path if each.endswith("notebooks"))
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
