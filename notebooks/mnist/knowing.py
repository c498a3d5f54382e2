"""Does a model know what it does not know: how many digits, and how many things that are none, it answers."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import nn

from mnist import models, strange, unlike
from mnist.data import Dataset
from mnist.plots import shown
from nbproof.notebook import source, write

MUST = ("noise", "blanks", "letters", "mirrored", "upside down", "cut")  # at most 5 % of each may be answered
SHARES = tuple(share / 200 for share in range(170, 200))  # of the digits that are answered: the curve's axis


@dataclass(frozen=True)
class Said:
    """What a model says of some images: probabilities [N, 10], features [N, F], strangeness [N]."""

    probabilities: torch.Tensor
    features: torch.Tensor
    strangeness: torch.Tensor

    def __getitem__(self, rows: slice) -> "Said":
        return Said(self.probabilities[rows], self.features[rows], self.strangeness[rows])


Score = Callable[[Said], torch.Tensor]  # higher where the image is less like a digit


def champion() -> str:
    """The name of the model that the comparison chose."""
    return json.loads(source("metrics/compare.json").read_text(encoding="utf-8"))["champion"]


def load(name: str) -> nn.Module:
    """The watched model `name`."""
    return models.program(f"models/{name}.pt2")


@torch.no_grad()
def say(model: nn.Module, images: torch.Tensor) -> Said:
    """What `model` says of normalised images."""
    return Said(*(torch.cat(parts) for parts in zip(*(model(each) for each in images.split(250)))))


def normalised(ink: dict[str, torch.Tensor], dataset: Dataset) -> dict[str, torch.Tensor]:
    """Images given as ink, by kind, as a model expects them."""
    return {kind: (each - dataset.mean) / dataset.deviation for kind, each in ink.items()}


def kinds(dataset: Dataset, count: int, seed: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What should not be answered, made of `count` validation images, and what was left out of that; see unlike."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(dataset.validation), generator=generator)[:count]
    ink, labels = strange.inked(dataset.validation.images[chosen], dataset), dataset.validation.labels[chosen]
    made = unlike.kinds(ink, labels, generator), unlike.lookalikes(ink, labels)
    return normalised(made[0], dataset), normalised(made[1], dataset)


def answered(strangeness: torch.Tensor, limit: float) -> float:
    """The share that is not too strange to be answered."""
    return (strangeness <= limit).double().mean().item()


def unsure(said: Said) -> torch.Tensor:
    """The highest probability, its sign turned: what a model without any more would give."""
    return -said.probabilities.amax(1)


def mahalanobis(said: Said, labels: torch.Tensor) -> Score:
    """The distance to the nearest class mean, in units of the spread that all classes share; learned from `said`."""
    means = torch.stack([said.features[labels == digit].mean(0) for digit in range(10)])
    apart = (said.features - means[labels]).double()
    spread = apart.T @ apart / len(apart)
    spread += 0.01 * spread.diagonal().mean() * torch.eye(len(spread), dtype=torch.float64)
    whiten = torch.linalg.cholesky(torch.linalg.inv(spread)).float()

    def score(asked: Said) -> torch.Tensor:
        return torch.cdist(asked.features @ whiten, means @ whiten).amin(1)

    return score


def learned(said: Said) -> torch.Tensor:
    """The model's own measure of strangeness."""
    return said.strangeness


def curve(score: Score, digits: Said, others: dict[str, Said]) -> list[float]:
    """For each of SHARES, the share of what must not be answered, each kind counting the same, if so many digits are.

    A score from 1 to 0 in steps of rounding, as that of a sure model, answers no fewer than it must.
    """
    ordered = score(digits).double().sort().values
    limits = [ordered[min(round(share * len(ordered)), len(ordered)) - 1].item() for share in SHARES]
    scored = [score(others[kind]).double() for kind in MUST]
    return [sum((each <= limit).double().mean().item() for each in scored) / len(scored) for limit in limits]


def halves(digits: Said, others: dict[str, Said]) -> dict[str, float]:
    """The limit chosen on one half of the validation images: which shares are answered of the other, and of others."""
    limit = strange.limit(digits[0::2].strangeness)
    shares = {kind: answered(others[kind].strangeness, limit) for kind in MUST}
    return {"digits": answered(digits[1::2].strangeness, limit)} | shares


def table(digits: float, others: dict[str, Said], apart: dict[str, Said], limit: float) -> str:
    """The shares answered, as a Markdown table: digits, what must not be answered, the rest, what is a digit anyway."""
    lines = ["| images | number | answered |", "|:--|--:|--:|", f"| **digits** | | {digits:.1%} |"]
    for kind, said in others.items():
        named = f"**{kind}**" if kind in MUST else kind
        lines.append(f"| {named} | {len(said.strangeness):,} | {answered(said.strangeness, limit):.1%} |")
    for kind, said in apart.items():
        share = answered(said.strangeness, limit)
        lines.append(f"| *left out, a digit to the eye:* {kind} | {len(said.strangeness):,} | {share:.1%} |")
    return "\n".join(lines)


def with_them(others: dict[str, Said], apart: dict[str, Said], limit: float) -> str:
    """The same figure with what was left out, and the kind that is worst."""
    names = {"letters": "the letters", "mirrored": "mirrored", "upside down": "upside", "cut": "cut"}
    parts = []
    for kind, begins in names.items():
        both = torch.cat([others[kind].strangeness, *(each.strangeness for name, each in apart.items()
                                                      if name.startswith(begins))])
        parts.append(f"{kind} {answered(both, limit):.1%}")
    return f"With what was left out the shares answered are: {', '.join(parts)}."


def tested(shares: dict[str, float]) -> str:
    """What the limit of one half does on the other half."""
    worst = max(MUST, key=lambda kind: shares[kind])
    return (
        f"Chosen on one half of the validation images, the limit lets **{shares['digits']:.1%}** of the other half be "
        f"answered, and at most **{shares[worst]:.1%}** of any kind that must not be ({worst})."
    )


def lowest(curves: dict[str, list[float]], at: float = 0.95) -> str:
    """Which measure answers the least of what is no digit, where the share `at` of the digits is answered."""
    place = min(range(len(SHARES)), key=lambda number: abs(SHARES[number] - at))
    shares = sorted((values[place], name) for name, values in curves.items())
    return (
        f"Where {SHARES[place]:.0%} of the digits are answered, so are of the others: "
        f"{', '.join(f'{share:.1%} ({name})' for share, name in shares)}."
    )


def picture(curves: dict[str, list[float]]) -> Figure:
    """The share answered of what is no digit, against the share of the digits; lower is better."""
    figure, axis = plt.subplots(figsize=(5, 3.4))
    for name, values in curves.items():
        axis.plot(SHARES, values, label=name)
    axis.axvline(0.95, color="#4d545c", linewidth=0.8, linestyle=":")
    axis.axhline(0.05, color="#4d545c", linewidth=0.8, linestyle=":")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set(xlabel="digits that are answered", ylabel="others that are answered", ylim=(0, None))
    axis.legend()
    return shown(figure)


def titles(said: Said, limit: float, short: bool = False) -> list[str]:
    """What is said of each image: `7, 99%`, or `? (7, 99%)` where it is not known; `short` leaves out the percents."""
    best, words = said.probabilities.max(1), []
    for digit, chance, strangeness in zip(best.indices.tolist(), best.values.tolist(), said.strangeness.tolist()):
        text = str(digit) if short else f"{digit}, {chance:.0%}"
        words.append(text if strangeness <= limit else f"? ({text})")
    return words


def store(
    name: str, dataset: Dataset, digits: float, others: dict[str, Said], limit: float, values: list[float]
) -> dict:
    """Write metrics/know.json and the curve metrics/know.csv; return the metrics."""
    shares = {f"answered_{kind.replace(' ', '_')}": round(answered(each.strangeness, limit), 4)
              for kind, each in others.items()}
    metrics = {"data": dataset.source, "model": name, "answered_digits": round(digits, 4), **shares}
    write("metrics/know.json", json.dumps(metrics, indent=2) + "\n")
    text = io.StringIO()
    rows = [(share, round(value, 4)) for share, value in zip(SHARES, values)]
    csv.writer(text, lineterminator="\n").writerows([("digits_answered", "others_answered"), *rows])
    write("metrics/know.csv", text.getvalue())
    return metrics
