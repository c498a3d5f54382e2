"""What is no digit, how strange a model finds it, and what the page `know` says of that."""

import pytest
import torch
from torch import nn

from mnist import ask, data, knowing, sources, strange, training, unlike


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    """The small digits, three quarters to learn from."""
    given = sources.digits()
    images, labels = given["train_images"][:, None].float() / 255, given["train_labels"]
    mean, deviation = images.mean().item(), images.std().item()
    images = (images - mean) / deviation
    parts = (data.Split(images[:1000], labels[:1000]), data.Split(images[1000:], labels[1000:]))
    return data.Dataset("digits", "0" * 64, *parts, mean, deviation)


@pytest.fixture(scope="module")
def watched(digits) -> strange.Watched:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.PixelUnshuffle(2), nn.Conv2d(4, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.MaxPool2d(2),
        nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(800, 10),
    )
    training.fit(net, digits.train, digits.validation, epochs=4, batch=50, lr=0.01, seed=0)
    return strange.watch(net, digits, seed=0)


def test_what_is_no_digit_is_ink_and_is_drawn_again_alike(digits):
    ink = strange.inked(digits.validation.images[:40], digits)
    made, again = (unlike.kinds(ink, digits.validation.labels[:40], torch.Generator().manual_seed(1)) for _ in range(2))
    assert set(knowing.MUST) <= set(made)
    for kind, images in made.items():
        assert images.shape[1:] == (1, 28, 28) and images.dtype == torch.float32 and len(images) >= 20, kind
        assert images.min() >= 0 and images.max() <= 1 and torch.equal(images, again[kind]), kind
    assert not torch.equal(made["noise"], unlike.noise(2000, torch.Generator().manual_seed(2)))


def test_what_is_a_digit_to_the_eye_is_counted_apart(digits):
    labels = digits.validation.labels
    ink = strange.inked(digits.validation.images, digits)
    made, apart = unlike.kinds(ink, labels, torch.Generator().manual_seed(1)), unlike.lookalikes(ink, labels)
    assert set("OoIlSZ") <= set(unlike.LIKE_DIGITS) and not set(unlike.LIKE_DIGITS) & set(unlike.clear_letters())
    assert len(unlike.clear_letters()) + len(unlike.LIKE_DIGITS) == 52
    assert len(made["mirrored"]) + len(apart["mirrored 0, 1 and 8"]) == len(labels)
    assert len(made["cut"]) + int((labels == 1).sum()) == len(labels) and len(apart["cut 1"]) == (labels == 1).sum()
    assert not set(unlike.TAUGHT) & set(unlike.ASKED)  # the page asks about letters in fonts that taught nothing


def test_a_letter_has_the_size_of_a_digit():
    letter, = unlike.letters(unlike.ASKED[:1], "H")[:, 0]
    rows, columns = ((letter > 0.2).any(axis).sum().item() for axis in (1, 0))
    assert max(rows, columns) in (ask.INK_SIDE, ask.INK_SIDE - 1) and letter.max() > 0.9


def test_digits_are_answered_and_other_things_are_not(watched, digits):
    said = knowing.say(watched, digits.validation.images)
    assert knowing.answered(said.strangeness, watched.limit) == pytest.approx(strange.ANSWERED, abs=0.01)
    others, _ = knowing.kinds(digits, 400, seed=3)
    asked = {kind: knowing.say(watched, each) for kind, each in others.items()}
    shares = {kind: knowing.answered(each.strangeness, watched.limit) for kind, each in asked.items()}
    assert max(shares[kind] for kind in ("noise", "blanks", "letters", "cut")) < 0.1, shares
    unsure = {kind: knowing.unsure(each) for kind, each in asked.items()}
    limit = strange.limit(knowing.unsure(said))
    without = {kind: knowing.answered(each, limit) for kind, each in unsure.items()}
    assert sum(shares[kind] for kind in knowing.MUST) < sum(without[kind] for kind in knowing.MUST) / 2, without


def test_watching_a_net_leaves_it_as_it_is(watched, digits):
    before = {name: value.clone() for name, value in watched.model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again = strange.watch(watched.model, digits, seed=0)
    assert torch.equal(torch.rand(3), expected)  # nor does it draw from what others draw from
    assert all(torch.equal(value, before[name]) for name, value in watched.model.state_dict().items())
    assert again.limit == watched.limit


def test_the_limit_lies_between_two_images():
    strangeness = torch.arange(100.0).flip(0)
    assert strange.limit(strangeness, 0.95) == 94.5 and knowing.answered(strangeness, 94.5) == 0.95
    assert strange.limit(strangeness, 1.0) == 98.5  # the strangest is never answered: a limit has two sides


def said(strangeness: list[float]) -> knowing.Said:
    values = torch.tensor(strangeness)
    chances = torch.full((len(values), 10), 0.05)
    chances[:, 3] = 0.55
    return knowing.Said(chances, values[:, None], values)


def test_the_curve_and_the_words():
    digits, others = said([number / 100 for number in range(100)]), {kind: said([0.5, 2.0]) for kind in knowing.MUST}
    curve = knowing.curve(knowing.learned, digits, others)
    assert curve[0] == curve[-1] == 0.5  # one of two is below each limit
    assert knowing.curve(knowing.unsure, digits, others) == [1.0] * len(knowing.SHARES)  # all are as sure as a digit is
    assert knowing.titles(others["noise"], 1.0) == ["3, 55%", "? (3, 55%)"]
    assert knowing.titles(others["noise"], 1.0, short=True) == ["3", "? (3)"]
    assert "| **noise** | 2 | 50.0% |" in knowing.table(0.96, others, {"cut 1": digits}, 1.0)
    assert "cut 99.0%" in knowing.with_them(dict.fromkeys(others, others["noise"]), {"cut 1": digits}, 1.0)
    assert "50.0% (learned), 100.0% (unsure)" in knowing.lowest({"unsure": [1.0] * 30, "learned": [0.5] * 30})
