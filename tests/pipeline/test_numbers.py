"""Numbers as people read them."""

import math

import pytest

from nbproof.pipeline.numbers import change, count, is_of_test, number


@pytest.mark.parametrize(("value", "text"), [
    (0.9955, "0.9955"), (1.0, "1.0000"), (0.989, "0.9890"), (1, "1"), (72258, "72,258"),
    (3.61778e-12, "3.6e-12"), (-63230.0, "-63,230.0"), (0.0, "0.0000"), (None, "–"),
    (math.nan, "NaN"), (math.inf, "inf"), (-math.inf, "-inf"), (10**20, "about 10^20"),
    ("text", "text"), (True, "True")])
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("before", "now", "text"), [
    (0.989, 0.9848, "−0.0042"), (118282, 55050, "−63,232"), (1, 1, "0"), (1, math.nan, ""),
    (None, 1, ""), (10**400, 1, ""), ("a", "b", "")])
def test_change(before, now, text):
    assert change(before, now) == text


def test_words():
    assert (count(1, "case"), count(10000, "case")) == ("1 case", "10,000 cases")
    assert is_of_test("test_accuracy") and is_of_test("scores.test_accuracy")
    assert not is_of_test("latest_accuracy")
