"""Whether the watch finds what is wrong with inputs, and keeps quiet where nothing is."""

import json

import logs
import numpy as np
import pytest
import torch
from torch import nn

from mnist import corrupted, data, portable, production, sources, strange, training, watching
from nbproof.notebook.errors import UserError

LEVEL, COMPONENTS, ANSWERS, WINDOWS = 0.001, 32, 200, 50


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    """The small digits in any order, fewer to learn from than to judge by."""
    given = sources.digits()
    order = torch.randperm(len(given["train_labels"]), generator=torch.Generator().manual_seed(0))
    images, labels = given["train_images"][order][:, None].float() / 255, given["train_labels"][order]
    mean, deviation = images.mean().item(), images.std().item()
    images = (images - mean) / deviation
    return data.Dataset("digits", "0" * 64, data.Split(images[:437], labels[:437]),
                        data.Split(images[437:], labels[437:]), mean, deviation)


@pytest.fixture(scope="module")
def watched(dataset) -> strange.Watched:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.PixelUnshuffle(2), nn.Conv2d(4, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.MaxPool2d(2),
        nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(800, 10),
    )
    training.fit(net, dataset.train, dataset.validation, epochs=6, batch=50, lr=0.01, seed=0)
    return strange.watch(net, dataset, seed=0)


@pytest.fixture
def model(watched, dataset, project) -> portable.Portable:
    return portable.Portable(portable.store("cnn", watched, dataset.validation))


def trial(model: portable.Portable, dataset: data.Dataset) -> tuple[dict[str, int | None], int]:
    """For each corruption the answers after which it is found; and how many of WINDOWS clean windows alarm.

    One half of the validation images is the reference, the windows are drawn from the other half.
    """
    images = dataset.validation.images
    half = len(images) // 2
    known = model(images[:half].numpy())
    usual = watching.reference(known["features"], known["strangeness"], COMPONENTS)
    clean, draw = model(images[half:].numpy()), np.random.default_rng(0)
    windows = [draw.choice(len(images) - half, ANSWERS, replace=False) for _ in range(WINDOWS)]
    alarms = sum(watching.shift(usual, clean["features"][window], clean["strangeness"][window], LEVEL).alarm
                 for window in windows)
    found = {}
    for kind, corrupt in corrupted.KINDS.items():
        ink = corrupt(strange.inked(images[half : half + ANSWERS], dataset), torch.Generator().manual_seed(1))
        said = model(((ink - dataset.mean) / dataset.deviation).numpy())
        found[kind] = watching.found_after(usual, said["features"], said["strangeness"], LEVEL, (25, 50, 100, 150, 200))
    return found, alarms


def test_each_corruption_is_found_and_clean_windows_are_not(model, dataset, capsys):
    found, alarms = trial(model, dataset)
    with capsys.disabled():
        print("\n| corruption | found after |\n|:--|--:|")
        print("\n".join(f"| {kind} | {count} |" for kind, count in found.items()))
        print(f"{alarms} of {WINDOWS} clean windows of {ANSWERS} answers alarm; {LEVEL * WINDOWS:g} are allowed.")
    assert len(found) == 5 and all(count is not None for count in found.values()), found
    assert alarms <= LEVEL * WINDOWS


def test_corruptions_change_digits_and_stay_ink(dataset):
    ink = strange.inked(dataset.validation.images[:20], dataset)
    for kind, corrupt in corrupted.KINDS.items():
        made = corrupt(ink, torch.Generator().manual_seed(1))
        assert made.shape == ink.shape and made.min() >= 0 and made.max() <= 1.0001, kind
        assert (made - ink).abs().amax((1, 2, 3)).min() > 0.05, kind  # each of the images


def test_the_stated_rate_of_false_alarms_holds():
    """Two samples of one normal distribution: the share of alarms is no more than the level, as Bonferroni promises."""
    draw, level = np.random.default_rng(0), 0.05
    known = draw.normal(size=(2000, 12))
    usual = watching.reference(known, known[:, 0], 8)
    alarms = sum(watching.shift(usual, new, new[:, 0], level).alarm for new in draw.normal(size=(300, 100, 12)))
    assert 1 <= alarms <= 300 * level + 3 * (300 * level) ** 0.5
    moved = draw.normal(size=(100, 12)) + 0.8
    assert watching.shift(usual, moved, moved[:, 0], level).alarm


def test_too_many_is_more_than_chance():
    assert not watching.too_many(6, 100, 500, 10_000, 0.01) and watching.too_many(15, 100, 500, 10_000, 0.01)
    assert not watching.too_many(0, 0, 500, 10_000, 0.01)
    assert not watching.too_many(15, 100, 3, 60, 0.01), "five of a hundred is not known from sixty"


def test_the_page_reads_the_log(model, dataset, project):
    images = dataset.validation.images[:60]
    logs.write(project, model, images.numpy(), {0: str(int(dataset.validation.labels[0])), 1: "11"})
    log = production.read(None)
    assert len(log["id"]) == 60 and len(production.read(10)["id"]) == 10
    assert production.overview(log) == (
        "**60 answers** of cnn, version 1; 2 of them have a label that a person gave, 60 their image.")
    features, strangeness, words = production.seen(log, model)
    assert features.shape == (60, 800) and words == "Features of the logged images."
    assert "The shadow (2) would have said the same to 60 of 60" in production.agreement(log)
    assert "Of 2 answers with a label 1 are right" in production.labelled(log)
    some = log | {"shadow_answer": [None] * 30 + log["answer"][30:], "shadow_version": ["1"] * 20 + ["2"] * 40}
    words = production.agreement(some)
    assert "The shadow (2)" in words and " of 40 (" in words, words
    [_, curve] = production.over_time(some).axes[0].get_lines()
    shares = curve.get_ydata()
    assert np.isnan(shares[:3]).all() and (shares[3:5] > 0).all() and (shares[5:] == 0).all(), shares
    assert production.latency(log, 3.0)[1] is False and production.latency(log, 1.0)[1] is True
    shown, words = production.strangest(log, strangeness, 5)
    assert shown.shape == (5, 1, 28, 28) and len(words) == 5
    assert "No alarm" in production.verdict({"a": False})
    assert production.verdict({"a": False, "b": True}) == "**Alarm: b.**"
    assert json.loads((project / "reports" / "drift.json").read_text()) == {"alarms": ["b"]}


def test_a_log_of_another_model_is_noticed(model, dataset, project, watched):
    logs.write(project, model, dataset.validation.images[:30].numpy())
    with torch.no_grad():
        watched.model[1].weight += 0.5
        other = portable.Portable(portable.store("cnn", watched, dataset.validation))
        watched.model[1].weight -= 0.5
    assert production.seen(production.read(None), other)[2].endswith("which is not the one that answered.")


def test_features_without_images(model, dataset, project):
    logs.write(project, model, dataset.validation.images[:30].numpy(), keep_images=False)
    log = production.read(None)
    assert production.seen(log, model)[2] == "Features as the log holds them."
    assert production.strangest(log, log["strangeness"])[0].shape == (0, 1, 28, 28)
    log["features"] = log["features"][:, :5]
    with pytest.raises(UserError, match="holds 5 features of an answer, models/cnn.onnx has 800"):
        production.seen(log, model)


def test_an_empty_log(model, dataset, project):
    logs.write(project, model, dataset.validation.images[:0].numpy().reshape(0, 1, 28, 28))
    with pytest.raises(UserError, match="holds no answer yet"):
        production.read(None)
