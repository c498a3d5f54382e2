"""OOD samples, the detector that learns from some of them, and the threshold between both."""

import io

import pytest
import torch

from production import ood_detector, ood_eval, ood_samples


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


def test_digits_are_answered_and_other_images_are_not(model, dataset):
    digits = ood_eval.predict(model, dataset.validation)
    expected = pytest.approx(ood_detector.ANSWERED, abs=0.01)
    assert ood_eval.answered(digits.scores, model.threshold) == expected
    samples, _ = ood_eval.samples(dataset.validation, 400, seed=3)
    others = {kind: ood_eval.predict(model, images) for kind, images in samples.items()}
    fractions = ood_eval.held_out(digits, others)
    assert max(fractions[kind] for kind in ("noise", "blanks", "letters", "cut")) < 0.1, fractions
    line = f"| **digits** | 1,197 | {ood_eval.answered(digits.scores, model.threshold):.1%} |"
    assert line in ood_eval.table(digits, others, {}, model.threshold)
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
