"""Drift: found where inputs have changed, quiet where they have not; what the notebook reports."""

import json

import logs
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nbproof.notebook.errors import UserError
from production import drift, onnx_export

LEVEL, COMPONENTS, COUNT = 0.001, 32, 200


@pytest.fixture
def onnx(model, dataset) -> onnx_export.OnnxModel:
    images = dataset.validation.normalised(slice(8))
    return onnx_export.OnnxModel(onnx_export.store("cnn", model, images, logs.DIGITS))


def sheared(ink: torch.Tensor) -> torch.Tensor:
    matrix = torch.tensor([[1.0, 0.6, 0.0], [0.0, 1.0, 0.0]]).repeat(len(ink), 1, 1)
    grid = F.affine_grid(matrix, list(ink.shape), align_corners=False)
    return F.grid_sample(ink, grid, align_corners=False)


CHANGES = {"sheared": sheared, "inverted": lambda ink: 1 - ink,
           "noise": lambda ink: (ink + 0.25 * torch.randn(ink.shape)).clamp(0, 1)}


def test_changed_images_are_found_and_others_raise_no_alarm(onnx, dataset):
    split, half = dataset.validation, len(dataset.validation) // 2
    reference = drift.sample(onnx, split.subset(slice(half)))
    rest, random = drift.sample(onnx, split.subset(slice(half, None))), np.random.default_rng(0)
    torch.manual_seed(0)
    ink, p = split.images[half : half + COUNT].float() / 255, {}
    for name, change in CHANGES.items():
        sample = drift.Sample(*onnx(((change(ink) - split.mean) / split.deviation).numpy())[1:])
        p[name] = drift.p_value(reference, sample, COMPONENTS)
    assert max(p.values()) < LEVEL, p
    for _ in range(8):
        rows = random.choice(len(rest.scores), COUNT, replace=False)
        window = drift.Sample(rest.features[rows], rest.scores[rows])
        assert drift.p_value(reference, window, COMPONENTS) >= LEVEL


def test_false_alarms_are_as_rare_as_promised():
    random, level = np.random.default_rng(0), 0.05
    known = random.normal(size=(2000, 12))
    reference = drift.Sample(known, known[:, 0])
    p = [drift.p_value(reference, drift.Sample(new, new[:, 0]), 8)
         for new in random.normal(size=(200, 100, 12))]
    alarms = sum(value < level for value in p)
    assert 1 <= alarms <= 200 * level + 3 * (200 * level) ** 0.5


def test_the_notebook_reads_the_log_with_its_images_and_without(onnx, dataset, project):
    split = dataset.validation
    labels = {0: str(int(split.labels[0])), 1: str((int(split.labels[1]) + 1) % 10)}
    logs.write(project, onnx, split.normalised(slice(60)).numpy(), labels, shadow=20)
    log = drift.read(None)
    assert len(log) == 60 and len(drift.read(10)) == 10
    sample, origin = drift.logged(log, onnx)
    assert sample.features.shape == (60, 800) and origin == "Features of the logged images."
    assert "agreed on 40 of 40" in drift.quality(log) and "1 of 2" in drift.quality(log)
    assert [drift.latency(log, limit)[1] for limit in (3.0, 1.0)] == [False, True]
    assert [len(part) for part in drift.highest(log, sample.scores, 5)] == [5, 5]
    disagreed = np.ma.filled(drift.time_figure(log, "").axes[0].get_lines()[1].get_ydata(), np.nan)
    assert np.isnan(disagreed[:3]).all() and (disagreed[4:] == 0).all()
    drift.verdict({"a": False, "b": True})
    assert json.loads((project / "reports" / "drift.json").read_text()) == {"alarms": ["b"]}
    (project / "served/log.sqlite").unlink()
    logs.write(project, onnx, split.normalised(slice(30)).numpy(), keep=False)
    log = drift.read(None)
    assert drift.logged(log, onnx)[1] == "Features as the log holds them."
    assert drift.highest(log, log.strangeness.to_numpy())[0].shape == (0, 1, 28, 28)
    onnx.feature_count = 5
    with pytest.raises(UserError, match="800 features of an answer, and models/cnn.onnx has 5"):
        drift.logged(log, onnx)


@pytest.mark.parametrize("count, total, usual, of, alarm", [
    (6, 100, 500, 10_000, False), (15, 100, 500, 10_000, True), (15, 100, 3, 60, False)])
def test_abstentions_are_too_many_if_chance_does_not_explain_them(count, total, usual, of, alarm):
    log = drift.pd.DataFrame({"answer": [None] * count + ["3"] * (total - count)})
    scores = np.array([1.0] * usual + [0.0] * (of - usual))
    assert drift.abstentions(log, scores, 0.5, 0.01)[1] == alarm
