"""OOD samples, the detector that learns from some of them, and what the notebook `know` reports."""

import io

import pytest
import torch

from production import ood_detector, ood_eval, ood_samples


def outputs(scores: list[float]) -> ood_eval.Outputs:
    probabilities = torch.full((len(scores), 10), 0.05)
    probabilities[:, 3] = 0.55
    return ood_eval.Outputs(probabilities, torch.tensor(scores))


def test_samples_are_ink_and_come_again(dataset):
    digits = dataset.validation.subset(slice(40))
    ink = digits.images.float() / 255
    made, again = (dict(ood_samples.samples(ink, digits.labels, torch.Generator().manual_seed(1)))
                   for _ in range(2))
    assert set(ood_eval.KINDS) <= set(made)
    for kind, images in made.items():
        assert images.shape[1:] == (1, 28, 28) and images.dtype == torch.float32, kind
        assert images.min() >= 0 and images.max() <= 1 and torch.equal(images, again[kind]), kind


def test_lookalikes_are_separate(dataset):
    labels, ink = dataset.validation.labels, dataset.validation.images.float() / 255
    made = dict(ood_samples.transformed(ink, labels))
    alike = dict(ood_samples.lookalikes(ink, labels))
    assert len(ood_samples.CLEAR_LETTERS) + len(ood_samples.LETTERS_LIKE_DIGITS) == 52
    for kind, (_, unchanged) in ood_samples.TRANSFORMS.items():
        count = int(torch.isin(labels, torch.tensor(unchanged)).sum())
        assert (len(alike[kind]), len(made[kind])) == (count, len(labels) - count)
    assert not {*ood_samples.TRAINING_FONTS} & {*ood_samples.TEST_FONTS}


def test_a_letter_has_the_size_of_a_digit():
    (letter,) = ood_samples.letters(ood_samples.TEST_FONTS[:1], "H")[:, 0]
    sides = [(letter > 0.2).any(axis).sum().item() for axis in (1, 0)]
    assert max(sides) in (19, 20) and letter.max() > 0.9


def test_digits_are_answered_and_other_images_are_not(model, dataset):
    digits = ood_eval.predict(model, dataset.validation)
    expected = pytest.approx(ood_detector.ANSWERED, abs=0.01)
    assert ood_eval.answered(digits.scores, model.threshold) == expected
    samples, _ = ood_eval.samples(dataset.validation, 400, seed=3)
    others = {kind: ood_eval.predict(model, images) for kind, images in samples.items()}
    fractions = ood_eval.held_out(digits, others)
    assert max(fractions[kind] for kind in ("noise", "blanks", "letters", "cut")) < 0.1, fractions
    detector, probability = (ood_eval.curve(ood_eval.SCORES[name], digits, others)
                             for name in ("detector", "probability"))
    assert sum(detector) < sum(probability) / 2


def test_fitting_changes_neither_the_model_nor_the_result(model, trained, dataset):
    program = torch.export.load(io.BytesIO(trained[1])).module()
    before = {name: value.clone() for name, value in program.state_dict().items()}
    again = ood_detector.fit(program, dataset, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in program.state_dict().items())
    assert again.threshold == model.threshold
    weights = zip(again.detector.state_dict().values(), model.detector.state_dict().values())
    assert all(torch.equal(*pair) for pair in weights)


def test_the_threshold_lies_between_two_images():
    scores = torch.arange(100.0).flip(0)
    assert ood_detector.threshold(scores, 0.95) == 94.5
    assert ood_detector.threshold(scores, 1.0) == 98.5  # a threshold has two sides


def test_the_numbers_and_words_of_the_notebook():
    digits = outputs([number / 100 for number in range(100)])
    others = {kind: outputs([0.5, 2.0]) for kind in ood_eval.KINDS}
    curve = ood_eval.curve(ood_eval.SCORES["detector"], digits, others)
    assert curve == [0.5] * len(ood_eval.FRACTIONS)  # one of two is below each threshold
    assert others["noise"].captions(1.0, "0123456789") == ["3, 55%", "? (3, 55%)"]
    table = ood_eval.table(digits, others, {"cut": digits}, 1.0)
    assert "| **noise** | 2 | 50.0% |" in table and "| **cut** | 2 | 50.0% | 100.0% |" in table
    reading = ood_eval.reading({"a": [0.5] * 30, "b": [0.05] * 30})
    assert "a lets 50.0% pass, the b lets 5.0%" in reading
    worst = {"digits": 0.96, **dict.fromkeys(ood_eval.KINDS, 0.01), "cut": 0.04}
    assert "at most 4.0% (cut)" in ood_eval.fractions_text(worst)
