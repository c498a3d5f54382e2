"""Numbers about predictions, against values from elsewhere."""

import math

import pytest
import torch

from mnist import evaluation
from mnist.evaluation import Predictions
from mnist.sources import SOURCES


def test_accuracy_loss_and_verdict(predicted):
    found = predicted([1, 2, 3, 3], [1, 2, 3, 4])
    loss = -(3 * math.log(0.9) + math.log(0.1 / 9)) / 4
    assert (found.accuracy, found.wrong, len(found)) == (0.75, 1, 4)
    assert found.loss == pytest.approx(loss, rel=1e-6)
    assert [evaluation.verdict(*parts) for parts in ((True, True), (True, False), (False,))] == [
        "Confirmed", "Partly confirmed", "Refuted"]
    assert evaluation.verdict(False, source=SOURCES["digits"]) == "This is not MNIST"


def test_wilson_interval(predicted):
    """81 of 263: R. Newcombe's example (Statistics in Medicine 17, 1998, table I)."""
    found = predicted([0] * 263, [0] * 81 + [1] * 182)
    assert evaluation.interval(found, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert evaluation.interval(predicted([0] * 10, [0] * 10), 0.95)[1] == 1


def test_calibration(predicted):
    right, wrong = predicted([1] * 8, [1] * 8, 0.95), predicted([2, 2], [1, 1], 0.45)
    both = Predictions(torch.cat([wrong.probabilities, right.probabilities]), torch.ones(10).long())
    confidence, accuracy, counts = evaluation.calibration(both)
    assert counts.tolist() == [2, 8] and accuracy.tolist() == [0, 1]
    assert confidence.tolist() == pytest.approx([0.45, 0.95])


def test_confusion_mistakes_and_disagreements(predicted):
    labels = [0, 1, 2, 3]
    good, humble = predicted([0, 1, 2, 4], labels), predicted([0, 1, 2, 4], labels, 0.8)
    weak = predicted([0, 2, 2, 5], labels, 0.3)
    matrix = evaluation.confusion(good)
    assert matrix.sum() == 4 and matrix[3, 4] == 1 and matrix[0, 0] == 1
    pairs = evaluation.confused_pairs(predicted([2, 1, 1, 4], [1, 2, 1, 3]))
    assert len(pairs) == 45 and pairs[:2] == [(1, 2, 2), (3, 4, 1)]
    assert evaluation.worst_mistakes(weak, 1).tolist() == [1]
    assert len(evaluation.worst_mistakes(weak, 9)) == 2
    assert sorted(evaluation.disagreements([good, weak]).tolist()) == [1, 3]
    assert evaluation.disagreements([good, humble]).tolist() == []
