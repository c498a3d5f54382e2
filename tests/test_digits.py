"""The science that the notebooks share: split, training, models on disk, comparison."""

import math
import resource
import subprocess
import sys
import zipfile

import pytest
import torch
from conftest import ROOT
from torch import nn

from digits import augment, comparison, data, models, odd, paths, readings, sources, training
from digits.training import Evaluation


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Outputs go to a folder of the test's own, and are read back from there."""
    monkeypatch.setenv("OUTPUT_ROOT", str(tmp_path))
    monkeypatch.setenv("PROGRESS_FILE", str(tmp_path / "progress"))
    monkeypatch.setattr(paths, "source", lambda name: tmp_path / name)
    return tmp_path


@pytest.fixture(scope="module")
def small() -> data.Digits:
    """scikit-learn's digits, split and normalised."""
    fetched = sources.digits()
    learn, judge = data.stratified(fetched["train_labels"], 0.2, 0)
    images = fetched["train_images"][:, None].float() / 255
    images = (images - images[learn].mean()) / images[learn].std()
    labels = fetched["train_labels"]
    return data.Digits("digits", "0" * 64, data.Split(images[learn], labels[learn]), data.Split(images[judge], labels[judge]))


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 6, 5, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(6 * 144, 10))


def evaluation(predicted: list[int], labels: list[int], confidence: float = 0.9) -> Evaluation:
    """Answers with the given predictions, each as confident as told."""
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
    assert torch.equal(judge, data.stratified(labels, share, seed=3)[1]) and not torch.equal(judge, data.stratified(labels, share, seed=4)[1])


def test_store_and_restore(scratch):
    tensors = {"b": torch.arange(6).view(2, 3).t(), "a": torch.ones(2, dtype=torch.uint8)}
    data.store("data/x.safetensors", tensors, source="digits", mean=0.5)
    first = (scratch / "data" / "x.safetensors").read_bytes()
    data.store("data/x.safetensors", tensors, mean=0.5, source="digits")
    restored, facts = data.restore("data/x.safetensors")
    assert first == (scratch / "data" / "x.safetensors").read_bytes()
    assert facts == {"source": "digits", "mean": 0.5} and all(torch.equal(restored[key], tensors[key]) for key in tensors)


def train(small, seed=0, **options):
    training.prepare(seed, 1, "cpu")
    made = net()
    history = training.fit(made, small.train, small.validation, epochs=6, batch=64, lr=0.01, seed=seed, **options)
    return made, history


@pytest.mark.parametrize("draw", [None, lambda images: augment.shifted(images, 1), lambda images: augment.moved(images, 1, 10, 0.1)])
def test_training_learns_and_repeats_itself_bit_for_bit(small, draw):
    options = {"draw": draw(small.train.images)} if draw else {}
    (first, history), (second, again) = train(small, **options), train(small, **options)
    assert history == again and all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    assert history[-1]["validation_accuracy"] > 0.9 and [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert training.evaluate(first, small.validation).accuracy == history[-1]["validation_accuracy"]
    assert train(small, seed=1, **options)[1] != history


@pytest.mark.parametrize("epochs, batch", [(1, 1000), (2, 1000), (10, 50), (1, 5), (3, 25)])
def test_training_of_few_steps(epochs, batch):
    """From a single step on, also where a tenth of the steps is exactly one."""
    few = data.Split(torch.randn(50, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 10)
    history = training.fit(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), few, few, epochs=epochs, batch=batch, lr=0.01, seed=0)
    assert len(history) == epochs and all(math.isfinite(row["train_loss"]) for row in history)


def test_augmentation(small):
    images, chosen = small.train.images[:50], torch.tensor([4, 4, 9])
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(augment.unmoved(images)(chosen, generator), images[chosen])
    assert torch.equal(augment.shifted(images, 0)(chosen, generator), images[chosen])
    assert torch.allclose(augment.moved(images, 0, 0, 0)(chosen, generator), images[chosen], atol=1e-4)
    many = torch.full((200,), 4)
    shifted = augment.shifted(images, 1)(many, generator)
    places = {tuple(image[0].argmax().item() for image in [each]) for each in shifted}
    expected = {(images[4][0].argmax() + 28 * down + right).item() for down in (-1, 0, 1) for right in (-1, 0, 1)}
    assert {place for (place,) in places} == expected and shifted.min() == images.min()
    moved = augment.moved(images, 2, 20, 0.2)(many, generator)
    assert moved.shape == (200, 1, 28, 28) and moved.min() >= images.min() - 1e-5 and moved.std(0).max() > 0.1


def test_evaluation():
    judged = evaluation([1, 2, 3, 3], [1, 2, 3, 4])
    assert judged.accuracy == 0.75 and judged.loss == pytest.approx(-(3 * math.log(0.9) + math.log(0.1 / 9)) / 4, rel=1e-6)


def test_wilson_interval():
    """81 of 263 right: E. Newcombe's example (Statistics in Medicine 17, 1998, table I): 0.2553 to 0.3662."""
    low, high = comparison.interval(evaluation([0] * 263, [0] * 81 + [1] * 182))
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert comparison.interval(evaluation([0] * 10, [0] * 10))[1] == 1


def test_mcnemar():
    first, second = evaluation([0] * 20, [0] * 15 + [1] * 5), evaluation([0] * 5 + [1] * 15, [0] * 15 + [1] * 5)
    test = comparison.mcnemar(first, second)
    exact = 2 * sum(math.comb(15, k) for k in range(10, 16)) / 2**15  # 10 against 5, by the binomial formula
    assert (test.only_first, test.only_second) == (10, 5) and test.p_value == pytest.approx(exact)
    assert comparison.mcnemar(first, first).p_value == 1


def test_ranking_disagreements_confusion_and_mistakes():
    labels = [0, 1, 2, 3]
    good = comparison.Candidate("good", 1, [], evaluation([0, 1, 2, 4], labels))
    sure = comparison.Candidate("sure", 1, [], evaluation([0, 1, 2, 4], labels, 0.8))
    weak = comparison.Candidate("weak", 1, [], evaluation([0, 2, 2, 5], labels, 0.3))
    assert [each.name for each in comparison.ranked([weak, sure, good])] == ["sure", "good", "weak"]  # sure: less loss for its mistake
    assert sorted(comparison.disagreements([good, weak]).tolist()) == [1, 3] and comparison.disagreements([good, sure]).tolist() == []
    matrix = comparison.confusion(good.validation)
    assert matrix.sum() == 4 and matrix[3, 4] == 1 and matrix[0, 0] == 1
    assert comparison.worst_mistakes(weak.validation, 1).tolist() == [1] and len(comparison.worst_mistakes(weak.validation, 9)) == 2


def test_a_stored_model_answers_as_the_net_did(small, scratch):
    made, history = train(small)
    judged = training.evaluate(made, small.validation)
    metrics = models.store("x", made, small, history, judged)
    first = (scratch / "models" / "x.pt2").read_bytes()
    assert models.export(made, small.validation.images) == first and metrics["parameters"] == models.count_parameters(made)
    loaded = models.load("x")
    for count in (1, 2, 7):
        with torch.no_grad():
            assert torch.allclose(loaded(small.validation.images[:count]), made(small.validation.images[:count]), atol=1e-5)
    candidate = models.candidate("x")
    assert torch.equal(candidate.validation.probabilities, judged.probabilities) and candidate.history == history
    with zipfile.ZipFile(scratch / "models" / "x.pt2") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert not [name for name, content in contents.items() if name.endswith((".pkl", ".pickle")) or (content[:1] == b"\x80" and b"torch" in content)]
    assert b'"use_pickle": true' not in b"".join(contents.values()) and contents["archive/data/sample_inputs/model.pt"] == b""


def test_odd_images():
    labels = torch.arange(10).repeat(3)
    images = torch.zeros(30, 4, 4)
    images[13] = 5
    assert odd.first_of_each(labels, 2).tolist() == [place for digit in range(10) for place in (digit, digit + 10)]
    assert odd.far_from_class_mean(images, labels)[0] == 13


def test_readings():
    assert readings.power_of_ten(0.123) == "0.12" and readings.power_of_ten(8.1e-7) == "8.1 \\cdot 10^{-7}"
    assert readings.titles(evaluation([1, 2], [1, 3]), torch.tensor([1])) == ["3 → 2"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A process that may write 1 KiB a file, as on a disk with no room."""
    paths.write("x.txt", "old")

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    script = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from digits import paths; paths.write('x.txt', 'new' * 1000)"
    done = subprocess.run([sys.executable, "-c", script], preexec_fn=no_room, cwd=ROOT / "notebooks", capture_output=True, text=True)
    assert done.returncode != 0 and "File too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"] and (tmp_path / "x.txt").read_text() == "old"
