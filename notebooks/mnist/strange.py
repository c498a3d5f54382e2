"""How unlike a digit an image is, by what a net sees in it.

A small net on the features of the trained one learns to tell training digits from images that are none: mirrored,
upside down, cut, overlaid, inverted, letters, noise (D. Hendrycks, M. Mazeika, T. Dietterich, Deep Anomaly Detection
with Outlier Exposure, https://arxiv.org/abs/1812.04606). The trained net stays as it is. Blanks, photographs, pairs and
the letters of other fonts teach nothing: that they are found all the same, the notebook `know` shows.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from mnist import augment, unlike
from mnist.data import Dataset
from mnist.dense import Dense

ANSWERED = 0.96  # share of the validation images that get an answer
MOST, HIDDEN, STEPS, BATCH, LR = 6000, 64, 600, 256, 0.003
PART = 250  # images at a time


class Strangeness(nn.Module):
    """Features [N, F] -> how strange [N]: the logarithm of the odds that the image is no digit."""

    def __init__(self, digits: torch.Tensor):
        """`digits` are the features of digits: each feature is measured by its mean and deviation among them."""
        super().__init__()
        evened = self.evened(digits)
        self.register_buffer("mean", evened.mean(0))
        self.register_buffer("deviation", evened.std(0) + 0.05)  # a feature that is always the same says little
        self.votes = nn.Sequential(Dense(digits.shape[1], HIDDEN), nn.ReLU(), Dense(HIDDEN, 1))

    @staticmethod
    def evened(features: torch.Tensor) -> torch.Tensor:
        """The square roots, signs kept: the largest features would drown the others.

        By the reciprocal root: PyTorch gives roots to MKL's vectors, which round them as the processor's vendor does.
        """
        return features * (features.abs() + 1e-6).rsqrt()

    def measured(self, features: torch.Tensor) -> torch.Tensor:
        """The features [N, F] as the votes see them: evened, in units of their deviation among digits."""
        return (self.evened(features) - self.mean) / self.deviation

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.votes(self.measured(features))[:, 0]


class Watched(nn.Module):
    """A model whose answer for images [N, 1, 28, 28] is probabilities [N, 10], features [N, F] and strangeness [N].

    The features are what its last layer votes on, for the image as it is. Above `limit` an image is too strange.
    """

    def __init__(self, model: nn.Module, strangeness: nn.Module, limit: float):
        super().__init__()
        self.model, self.strangeness, self.limit = model, strangeness, limit

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = below(self.model)(images)
        return self.model(images).softmax(1), features, self.strangeness(features)


def below(model: nn.Module) -> nn.Sequential:
    """The layers of a net below its last one; of a model that looks several times, those of the net that looks."""
    return getattr(model, "net", model)[:-1]


def watch(model: nn.Module, dataset: Dataset, seed: int) -> Watched:
    """`model` with its measure of strangeness, on the CPU, learned from training images; the limit is of validation."""
    with torch.random.fork_rng(devices=[]):  # what is drawn here changes nothing that is drawn later
        torch.manual_seed(seed)
        digits, odd = (
            torch.cat([features(model, images, dataset) for images in each]) for each in lessons(dataset, seed))
        strangeness = _taught(Strangeness(digits), digits, odd)
    return Watched(model, strangeness, limit(scores(model, strangeness, dataset.validation.images)))


def lessons(dataset: Dataset, seed: int) -> tuple[Iterator[torch.Tensor], Iterator[torch.Tensor]]:
    """Ink of training digits, half of them warped a little as hands do; and ink of images that are no digits.

    Both come in parts, each made when it is asked for: together they take as much memory as the training images.
    """
    generator = torch.Generator().manual_seed(seed)
    train, count = dataset.train, min(len(dataset.train), 2 * MOST)
    chosen = torch.randperm(len(train), generator=generator)[:count]
    images, labels = inked(train.images[chosen.to(train.images.device)].cpu(), dataset), train.labels.cpu()[chosen]
    half = count // 2

    def digits() -> Iterator[torch.Tensor]:
        yield images[:half]
        yield from _warped(images, torch.arange(half, count), generator)

    def odd() -> Iterator[torch.Tensor]:
        yield unlike.mirrored(unlike.without(images[:half], labels[:half], unlike.SAME_MIRRORED))
        yield unlike.upside_down(unlike.without(images[:half], labels[:half], unlike.SAME_UPSIDE_DOWN))
        yield unlike.cut(unlike.without(images[:half], labels[:half], unlike.SAME_CUT))
        yield unlike.overlaid(images[:half], generator)
        yield 1 - images[: half // 3]
        yield unlike.noise(half // 3, generator)
        letters = unlike.letters(unlike.TAUGHT, unlike.clear_letters())
        yield from _warped(letters, torch.randint(len(letters), (half,), generator=generator), generator)

    return digits(), odd()


def _warped(images: torch.Tensor, chosen: torch.Tensor, generator: torch.Generator) -> Iterator[torch.Tensor]:
    draw = augment.warped(images, shift=1.5, rotate=10, scale=0.1, elastic=0.7)
    return (draw(part, generator) for part in chosen.split(PART))


def inked(images: torch.Tensor, dataset: Dataset) -> torch.Tensor:
    """Normalised images as ink from 0 to 1."""
    return (images * dataset.deviation + dataset.mean).clamp(0, 1)


@torch.no_grad()
def features(model: nn.Module, ink: torch.Tensor, dataset: Dataset) -> torch.Tensor:
    """What the last layer of `model` votes on, [N, F] on the CPU, for images given as ink."""
    net, device = below(model).eval(), dataset.train.images.device
    return torch.cat([
        net(((images - dataset.mean) / dataset.deviation).to(device)).float().cpu() for images in ink.split(PART)])


@torch.no_grad()
def scores(model: nn.Module, strangeness: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """How strange each of the normalised images is."""
    net = below(model).eval()
    return torch.cat([strangeness(net(each).float().cpu()) for each in images.split(PART)])


def limit(digits: torch.Tensor, answered: float = ANSWERED) -> float:
    """The limit that lets the share `answered` of digits, whose strangeness [N] is given, be answered.

    It is midway between two of them: no rounding on another machine moves one to the other side.
    """
    ordered = digits.double().sort().values
    place = min(max(1, round(answered * len(ordered))), len(ordered) - 1)
    return float(f"{(ordered[place - 1] + ordered[place]).item() / 2:.6g}")


def _taught(strangeness: Strangeness, digits: torch.Tensor, odd: torch.Tensor) -> Strangeness:
    """Learn to tell the features of digits from those of odd images, by AdamW under a one-cycle rate.

    The fused AdamW takes no root by MKL; see `evened`.
    """
    seen = torch.cat([strangeness.measured(part) for each in (digits, odd) for part in each.split(PART)])
    is_odd = torch.cat([torch.zeros(len(digits)), torch.ones(len(odd))])
    optimizer = torch.optim.AdamW(strangeness.parameters(), lr=LR, weight_decay=0.05, fused=True)
    schedule = OneCycleLR(optimizer, max_lr=LR, total_steps=STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(seen), (BATCH,))
        loss = F.binary_cross_entropy_with_logits(strangeness.votes(seen[chosen])[:, 0], is_odd[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return strangeness.eval()
