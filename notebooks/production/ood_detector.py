"""An out-of-distribution (OOD) detector: how likely is it that an image is no digit?

It is a small net on the features of a trained model, which itself stays as it is. It learns to tell
training digits from images that are none (D. Hendrycks, M. Mazeika, T. Dietterich, Deep Anomaly
Detection with Outlier Exposure, https://arxiv.org/abs/1812.04606). Some kinds, such as blank
images, are not among them: the notebook `know` shows that it detects these, too.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Graph, GraphModule
from torch.optim.lr_scheduler import OneCycleLR

from mnist import augment, data, models
from mnist.data import Dataset, Split
from nbproof.notebook.errors import UserError
from production import ood_samples

ANSWERED = 0.96  # fraction of the validation images that are not out of distribution
DIGITS, HIDDEN, STEPS, BATCH, LR = 6000, 64, 600, 256, 0.003
PART = 250  # images in memory as floats at a time


class OODDetector(nn.Module):
    """Features [N, F] -> OOD scores [N]: the logarithm of the odds that the image is no digit."""

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.layers = nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    @staticmethod
    def roots(features: torch.Tensor) -> torch.Tensor:
        """Return the signed square roots of `features`: the largest ones would dominate.

        By the reciprocal root, because PyTorch computes roots with MKL's vector library, which
        rounds differently on processors of different vendors.
        """
        return features * (features.abs() + 1e-6).rsqrt()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        standardised = (self.roots(features) - self.mean) / self.deviation
        return self.layers(standardised)[:, 0]


class ModelWithDetector(nn.Module):
    """Normalised images [N, 1, 28, 28] -> probabilities [N, 10], features [N, F], OOD scores [N].

    An image with a score above `threshold` is out of distribution: the model abstains.
    """

    def __init__(self, model: GraphModule, detector: OODDetector, threshold: float):
        super().__init__()
        self.model, self.detector, self.threshold = with_features(model), detector, threshold

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits, features = self.model(images)
        return logits.softmax(1), features, self.detector(features)


def with_features(model: GraphModule, only: bool = False) -> GraphModule:
    """Return an exported `model` with a second output: the features [N, F] of its last layer.

    A model that predicts from several views of an image has these of the first, the image itself.
    With `only`, the features are the one output, and nothing else is computed. Raise UserError
    where the last layer is not dense.
    """
    dense = [node for node in model.graph.nodes if node.target is torch.ops.aten.linear.default]
    if not dense:
        raise UserError("The OOD detector reads what a model's last nn.Linear gets, and this one "
                        "has none: end it with nn.Linear.")
    last = next(node for node in dense if node.args[1] is dense[-1].args[1])
    graph, copies = Graph(), {}
    (logits,) = graph.graph_copy(model.graph, copies)
    features = copies[last.args[0]]
    graph.output(features if only else (logits, features))
    extended = GraphModule(model, graph)
    extended.graph.eliminate_dead_code()
    extended.recompile()
    return extended


def fit(model: GraphModule, dataset: Dataset, seed: int) -> ModelWithDetector:
    """Return `model` with a detector; the validation images determine the threshold."""
    torch.manual_seed(seed)
    train, validation = dataset.train, dataset.validation
    features_of = with_features(model, only=True).requires_grad_(False)
    features, targets = [], []
    for ink, target in training_samples(train, seed):
        for part in ink.split(PART):
            features.append(features_of((part - train.mean) / train.deviation))
            targets.append(torch.full((len(part),), float(target)))
    detector = trained(torch.cat(features), torch.cat(targets))
    parts = torch.arange(len(validation)).split(PART)
    scores = [detector(features_of(validation.normalised(part))) for part in parts]
    return ModelWithDetector(model, detector, threshold(torch.cat(scores)))


def training_samples(train: Split, seed: int) -> Iterator[tuple[torch.Tensor, bool]]:
    """Yield parts of ink [N, 1, 28, 28], and whether they are OOD; half of the digits are warped.

    Each part is made when it is needed: all together they take as much memory as PyTorch.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(train), generator=generator)[:DIGITS]
    digits, labels = train.images[chosen].float() / 255, train.labels[chosen]
    half = len(digits) // 2
    warp = augment.warp(shift=1.5, rotate=10, scale=0.1, elastic=0.7)
    yield digits[:half], False
    for part in digits[half:].split(PART):
        yield warp(part, generator), False
    for _, ink in ood_samples.transformed(digits[:half], labels[:half]):
        yield ink, True
    yield ood_samples.overlaid(digits[:half], generator), True
    yield 1 - digits[: half // 3], True
    yield ood_samples.noise(half // 3, generator), True
    letters = ood_samples.letters(ood_samples.TRAINING_FONTS, ood_samples.CLEAR_LETTERS)
    for rows in torch.randint(len(letters), (half,), generator=generator).split(PART):
        yield warp(letters[rows], generator), True


def trained(features: torch.Tensor, targets: torch.Tensor) -> OODDetector:
    """Return a detector that has learned the `targets` [N], 1 for OOD, of `features` [N, F].

    The fused AdamW computes no root by MKL; see OODDetector.roots.
    """
    detector = OODDetector(features.shape[1])
    roots = detector.roots(features[targets == 0])
    detector.mean, detector.deviation = roots.mean(0), roots.std(0) + 0.05  # some are constant
    optimizer = torch.optim.AdamW(detector.parameters(), lr=LR, weight_decay=0.05, fused=True)
    schedule = OneCycleLR(optimizer, max_lr=LR, total_steps=STEPS)
    for _ in range(STEPS):
        batch = torch.randint(len(features), (BATCH,))
        loss = F.binary_cross_entropy_with_logits(detector(features[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return detector.eval().requires_grad_(False)


def threshold(scores: torch.Tensor, answered: float = ANSWERED) -> float:
    """Return the threshold below which the fraction `answered` of the OOD `scores` [N] lies.

    It lies midway between two scores, so that rounding on another machine moves no image across.
    """
    ordered = scores.double().sort().values
    last = min(max(1, round(answered * len(ordered))), len(ordered) - 1)
    return float(f"{(ordered[last - 1] + ordered[last]).item() / 2:.6g}")


def store(name: str, model: ModelWithDetector) -> None:
    """Write the detector of the model `name` as models/NAME.ood.safetensors."""
    weights = model.detector.state_dict()
    data.store(f"models/{name}.ood.safetensors", weights, threshold=model.threshold)


def load(name: str) -> ModelWithDetector:
    """Return the model `name` with the detector that `store` wrote."""
    tensors, facts = data.restore(f"models/{name}.ood.safetensors")
    detector = OODDetector(len(tensors["mean"]))
    detector.load_state_dict(tensors)
    return ModelWithDetector(models.load(name), detector.eval(), facts["threshold"])
