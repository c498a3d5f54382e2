"""A project of the test's own, and a small data set."""

import pytest
import torch

from mnist import data, sources


@pytest.fixture(autouse=True)
def project(tmp_path_factory, inside, monkeypatch):
    """An empty project: what is written below it as an output is found again as a source."""
    folder = tmp_path_factory.mktemp("project")
    metric = "metric: {key: validation_accuracy, goal: max}\n"
    (folder / "project.yaml").write_text(f"name: test\n{metric}")
    (folder / "params.yaml").write_text("compare: {confidence: 0.95}\nmodels: {x: {}}\n")
    monkeypatch.setenv("NBPROOF_OUTPUT", str(folder))
    return inside(folder)


@pytest.fixture
def events(monkeypatch) -> list[dict]:
    """The events that the code under test sends from now on."""
    from nbproof.notebook import errors, progress

    sent: list[dict] = []
    for module in (errors, progress):
        monkeypatch.setattr(module, "say", lambda **event: sent.append(event))
    return sent


@pytest.fixture(scope="session")
def small() -> data.Dataset:
    """scikit-learn's digits, split."""
    fetched = sources.digits()
    images, labels = fetched["train_images"][:, None], fetched["train_labels"]
    parts = data.stratified(labels, 0.2, 0)
    train, validation = (data.Split(images[part], labels[part], 0.15, 0.28) for part in parts)
    return data.Dataset(sources.SOURCES["digits"], "0" * 64, train, validation)


@pytest.fixture(scope="session")
def predicted():
    """A function that makes predictions of given classes, each with the same confidence."""
    from mnist.evaluation import Predictions

    def make(predicted: list[int], labels: list[int], confidence: float = 0.9) -> Predictions:
        probabilities = torch.full((len(predicted), 10), (1 - confidence) / 9)
        probabilities[range(len(predicted)), predicted] = confidence
        return Predictions(probabilities, torch.tensor(labels))

    return make
