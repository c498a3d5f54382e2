"""The science that the notebooks share: split, training, evaluation, comparison."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mnist import (
    augment,
    comparison,
    data,
    evaluation,
    leaderboard,
    models,
    odd,
    readings,
    sources,
    training,
)
from mnist.evaluation import Evaluation


@pytest.fixture(scope="module")
def small() -> data.Dataset:
    """scikit-learn's digits, split and normalised."""
    fetched = sources.digits()
    learn, judge = data.stratified(fetched["train_labels"], 0.2, 0)
    images = fetched["train_images"][:, None].float() / 255
    images = (images - images[learn].mean()) / images[learn].std()
    train, validation = (data.Split(images[part], fetched["train_labels"][part]) for part in (learn, judge))
    return data.Dataset("digits", "0" * 64, train, validation)


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(864, 10)
    )


def answers(predicted: list[int], labels: list[int], confidence: float = 0.9) -> Evaluation:
    """Answers with the given predictions, each with the same confidence."""
    probabilities = torch.full((len(predicted), 10), (1 - confidence) / 9)
    probabilities[range(len(predicted)), predicted] = confidence
    return Evaluation(probabilities, torch.tensor(labels))


@pytest.mark.parametrize("share", [0.1, 1 / 6, 0.16666667, 0.5])
def test_split_is_exact_disjoint_and_stratified(share):
    labels = torch.randint(0, 10, (5000,), generator=torch.Generator().manual_seed(1))
    learn, judge = data.stratified(labels, share, seed=3)
    assert len(judge) == round(share * 5000) and sorted([*learn.tolist(), *judge.tolist()]) == list(range(5000))
    counts, all_counts = torch.bincount(labels[judge]), torch.bincount(labels)
    assert ((counts - share * all_counts).abs() < 1).all()
    assert torch.equal(judge, data.stratified(labels, share, seed=3)[1])
    assert not torch.equal(judge, data.stratified(labels, share, seed=4)[1])


def train(small, seed=0, **options):
    training.prepare(seed, 1, "cpu")
    made = net()
    history = training.fit(made, small.train, small.validation, epochs=6, batch=64, lr=0.01, seed=seed, **options)
    return made, history


@pytest.mark.parametrize(
    "draw", [None, lambda images: augment.shifted(images, 1), lambda images: augment.warped(images, 1, 10, 0.1, 0.5)]
)
def test_training_learns_and_repeats_itself_bit_for_bit(small, draw):
    options = {"draw": draw(small.train.images)} if draw else {}
    (first, history), (second, again) = train(small, **options), train(small, **options)
    pairs = zip(first.state_dict().values(), second.state_dict().values())
    assert history == again and all(torch.equal(a, b) for a, b in pairs)
    assert history[-1]["validation_accuracy"] > 0.9 and [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert training.evaluate(first, small.validation).accuracy == history[-1]["validation_accuracy"]
    assert train(small, seed=1, **options)[1] != history


@pytest.mark.parametrize("epochs, batch", [(1, 1000), (2, 1000), (10, 50), (1, 5), (3, 25)])
def test_training_of_few_steps(epochs, batch):
    """From a single step on, also where a tenth of the steps is exactly one."""
    images = torch.randn(50, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    few, small_net = data.Split(images, torch.arange(50) % 10), nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    history = training.fit(small_net, few, few, epochs=epochs, batch=batch, lr=0.01, seed=0)
    assert len(history) == epochs and all(math.isfinite(row["train_loss"]) for row in history)


def test_an_epoch_sees_the_hard_images_and_some_of_the_easy_ones():
    lessons = training.Lessons(100, epochs=6, batch=10, share=0.5, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    assert lessons.steps == [10, 5, 5, 5, 10, 10]
    assert sorted(lessons.of(1, generator).tolist()) == list(range(100))
    lessons.losses[:] = 0.1
    lessons.losses[:20] = 2.0
    lessons.losses[20] = math.nan  # never seen yet: the batches of the first epoch need not hold all
    seen = [set(lessons.of(epoch, generator).tolist()) for epoch in (2, 3)]
    assert all(len(each) == 50 and set(range(21)) <= each for each in seen) and seen[0] != seen[1]
    assert not set(lessons.of(4, generator)[:21].tolist()) <= set(range(21)), "hard and easy ones are mixed"
    assert len(set(lessons.of(6, generator).tolist())) == 100
    assert lessons.loss == pytest.approx((20 * 2.0 + 79 * 0.1) / 99)
    lessons.losses[:90] = 9.0
    assert len(set(lessons.of(5, generator).tolist()) & set(range(90))) == 90 and len(lessons.of(3, generator)) == 50


def test_a_training_on_a_share_of_the_images_repeats_itself_bit_for_bit(small):
    (first, history), (second, again) = train(small, share=0.3), train(small, share=0.3)
    pairs = zip(first.state_dict().values(), second.state_dict().values())
    assert history == again and all(torch.equal(a, b) for a, b in pairs)
    assert history[-1]["validation_accuracy"] > 0.9 and history != train(small)[1]


def test_a_training_is_followed_and_small_ones_inside_another_are_not(small, events):
    made, _ = train(small)
    followed = len(events)
    rows = training.by_size(made, small, steps=10, batch=64, lr=0.01, seed=0, parts=(4, 1))
    assert followed == 6 == len(events)
    assert all("validation_accuracy" in event["metrics"] for event in events)
    assert [row["images"] for row in rows] == [len(small.train) // 4, len(small.train)]


def test_augmentation(small):
    images, chosen = small.train.images[:50], torch.tensor([4, 4, 9])
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(augment.unmoved(images)(chosen, generator), images[chosen])
    assert torch.equal(augment.shifted(images, 0)(chosen, generator), images[chosen])
    assert torch.equal(augment.warped(images, 0, 0, 0, 0)(chosen, generator), images[chosen])
    many = torch.full((200,), 4)
    shifted = augment.shifted(images, 1)(many, generator)
    places = {image[0].argmax().item() for image in shifted}
    brightest = images[4][0].argmax().item()
    assert places == {brightest + 28 * down + right for down in (-1, 0, 1) for right in (-1, 0, 1)}
    assert shifted.min() == images.min()
    for far in ((2, 0, 0, 0), (0, 20, 0, 0), (0, 0, 0.2, 0), (0, 0, 0, 1), (28, 360, 2, 20)):
        warped = augment.warped(images, *far)(many, generator)
        assert warped.shape == (200, 1, 28, 28) and warped.std(0).max() > 0.1, far
        assert images.min() - 1e-5 <= warped.min() and warped.max() <= images.max() + 1e-5, far


def test_a_model_looks_at_an_image_and_at_four_that_are_moved(small):
    """Each look is what grid_sample makes of the image; the answer is the geometric mean of five."""
    images, seen = small.train.images[:9], []

    class Net(nn.Module):
        def forward(self, look):
            seen.append(look)
            return look.flatten(1)[:, 300:310]

    answer = models.FiveLooks(Net())(images)
    assert len(seen) == 5 and torch.equal(seen[0], images)
    for look, (right, down, degrees) in zip(seen[1:], ((0, 1, 8), (0, -1, -8), (1, 0, -8), (-1, 0, 8))):
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        back = torch.tensor([[cos, -sin], [sin, cos]])
        move = torch.cat([back, -back @ torch.tensor([[right / 14], [down / 14]])], 1).expand(9, 2, 3)
        grid = F.affine_grid(move, images.shape, align_corners=False)
        expected = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        assert (look - expected).abs().max() < 2e-3 and (look - images).abs().max() > 0.5
    mean = torch.stack([look.flatten(1)[:, 300:310].softmax(1) for look in seen]).log().mean(0)
    assert torch.allclose(answer, mean, atol=1e-6)


def test_evaluation():
    judged = answers([1, 2, 3, 3], [1, 2, 3, 4])
    loss = -(3 * math.log(0.9) + math.log(0.1 / 9)) / 4
    assert judged.accuracy == 0.75 and judged.loss == pytest.approx(loss, rel=1e-6)


def test_wilson_interval():
    """81 of 263 right: E. Newcombe's example (Statistics in Medicine 17, 1998, table I): 0.2553 to 0.3662."""
    low, high = evaluation.interval(answers([0] * 263, [0] * 81 + [1] * 182))
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert evaluation.interval(answers([0] * 10, [0] * 10))[1] == 1


def test_calibration_and_mistakes_by_confidence():
    right, wrong = answers([1] * 8, [1] * 8, 0.95), answers([2, 2], [1, 1], 0.45)
    both = Evaluation(torch.cat([wrong.probabilities, right.probabilities]), torch.tensor([1] * 10))
    groups = evaluation.calibration(both)
    assert groups.counts.tolist() == [2, 8] and groups.accuracy.tolist() == [0, 1]
    assert groups.error == pytest.approx(0.2 * 0.45 + 0.8 * 0.05, abs=1e-6)
    assert evaluation.mistakes_by_confidence(both).tolist() == [0] * 8 + [1, 2]


def test_ranking_disagreements_confusion_and_mistakes():
    labels = [0, 1, 2, 3]
    good = comparison.Candidate("good", 1, [], answers([0, 1, 2, 4], labels))
    humble = comparison.Candidate("humble", 1, [], answers([0, 1, 2, 4], labels, 0.8))
    weak = comparison.Candidate("weak", 1, [], answers([0, 2, 2, 5], labels, 0.3))
    ranked = comparison.ranked([weak, humble, good])
    assert [each.name for each in ranked] == ["humble", "good", "weak"]  # less loss for the same mistake
    assert sorted(comparison.disagreements([good, weak]).tolist()) == [1, 3]
    assert comparison.disagreements([good, humble]).tolist() == []
    matrix = evaluation.confusion(good.validation)
    assert matrix.sum() == 4 and matrix[3, 4] == 1 and matrix[0, 0] == 1
    assert evaluation.worst_mistakes(weak.validation, 1).tolist() == [1]
    assert len(evaluation.worst_mistakes(weak.validation, 9)) == 2
    lead = comparison.mcnemar(good.validation, weak.validation)
    assert (lead.only_first, lead.only_second, lead.p_value) == (1, 0, 1)


def test_odd_images():
    labels = torch.arange(10).repeat(3)
    images = torch.zeros(30, 4, 4)
    images[13] = 5
    expected = [place for digit in range(10) for place in (digit, digit + 10)]
    assert odd.first_of_each(labels, 2).tolist() == expected
    assert odd.far_from_class_mean(images, labels)[0] == 13


def test_readings():
    assert leaderboard.power_of_ten(0.123) == "0.12" and leaderboard.power_of_ten(8.1e-7) == "8.1 \\cdot 10^{-7}"
    assert readings.titles(answers([1, 2], [1, 3]), torch.tensor([1])) == ["3 → 2"]
