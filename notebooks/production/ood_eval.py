"""How well a model abstains: the fractions of digits and of OOD samples that it answers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mnist import figures
from mnist.data import Split
from nbproof.notebook import write
from production import ood_detector, ood_samples
from production.ood_detector import ModelWithDetector

# Of the hypothesis: without a whole digit. Two digits, or an inverted one, are shown beside them.
KINDS = ("noise", "blanks", "letters", "mirrored", "upside down", "cut")
LEAST, MOST = 0.95, 0.05  # of the digits, and of each of KINDS, that a model may answer
FRACTIONS = tuple(number / 200 for number in range(170, 200))  # of digits: the curve's axis


@dataclass(frozen=True)
class Outputs:
    """What a model returns: probabilities [N, 10] and OOD scores [N]."""

    probabilities: torch.Tensor
    scores: torch.Tensor

    def __getitem__(self, rows: slice | torch.Tensor) -> "Outputs":
        return Outputs(self.probabilities[rows], self.scores[rows])

    def captions(self, threshold: float, classes: Sequence[str]) -> list[str]:
        """Return each prediction, such as `7, 99%`; `? (7, 99%)` where the model abstains."""
        pairs = zip(*(values.tolist() for values in self.probabilities.max(1)))
        texts = [f"{classes[label]}, {value:.0%}" for value, label in pairs]
        return [text if score <= threshold else f"? ({text})"
                for text, score in zip(texts, self.scores.tolist())]


Score = Callable[[Outputs], torch.Tensor]  # [N], higher for an image that is less like a digit
SCORES: dict[str, Score] = {"detector": lambda outputs: outputs.scores,
                            "probability": lambda outputs: -outputs.probabilities.amax(1)}


@torch.no_grad()
def predict(model: ModelWithDetector, split: Split) -> Outputs:
    """Return the outputs of `model` for the images of `split`."""
    batches = torch.arange(len(split)).split(ood_detector.PART)
    outputs = [model(split.normalised(batch))[::2] for batch in batches]
    return Outputs(*map(torch.cat, zip(*outputs)))


def as_split(ink: torch.Tensor, like: Split) -> Split:
    """Return ink [N, 1, 28, 28] as a split without labels, normalised as `like`."""
    return Split((ink * 255).round().byte(), torch.zeros(len(ink)), like.mean, like.deviation)


def samples(validation: Split, count: int, seed: int) -> tuple[dict[str, Split], dict[str, Split]]:
    """Return OOD samples, and lookalikes, by kind, made of `count` validation images."""
    generator = torch.Generator().manual_seed(seed)
    digits = validation.subset(torch.randperm(len(validation), generator=generator)[:count])
    ink = digits.images.float() / 255
    both = (ood_samples.samples(ink, digits.labels, generator),
            ood_samples.lookalikes(ink, digits.labels))
    return tuple({kind: as_split(images, validation) for kind, images in made} for made in both)


def answered(scores: torch.Tensor, threshold: float) -> float:
    """Return the fraction of `scores` [N] that is not above the threshold."""
    return (scores <= threshold).double().mean().item()


def curve(score: Score, digits: Outputs, others: dict[str, Outputs]) -> list[float]:
    """Return the mean fraction of KINDS that is answered, for each of FRACTIONS of the digits."""
    ordered, scores = score(digits).sort().values, [score(others[kind]) for kind in KINDS]
    thresholds = [ordered[round(fraction * len(ordered)) - 1].item() for fraction in FRACTIONS]
    return [sum(answered(kind, threshold) for kind in scores) / len(scores)
            for threshold in thresholds]


def held_out(digits: Outputs, others: dict[str, Outputs]) -> dict[str, float]:
    """Return the fractions answered, with a threshold from the other half of the digits."""
    threshold = ood_detector.threshold(digits[0::2].scores)
    fractions = {kind: answered(others[kind].scores, threshold) for kind in others}
    return {"digits": answered(digits[1::2].scores, threshold)} | fractions


def held_out_table(fractions: dict[str, float]) -> str:
    """Return the fractions of `held_out` as a Markdown table."""
    rows = [f"| {_bold(kind)} | {fraction:.1%} |" for kind, fraction in fractions.items()]
    return "\n".join(["| images | answered |", "|:--|--:|", *rows])


def _bold(kind: str) -> str:
    return f"**{kind}**" if kind in ("digits", *KINDS) else kind


def table(digits: Outputs, others: dict[str, Outputs], alike: dict[str, Outputs],
          threshold: float) -> str:
    """Return the fractions answered by kind, KINDS in bold, as a Markdown table."""
    rows = ["| images | number | answered | lookalikes answered |", "|:--|--:|--:|--:|"]
    for kind, outputs in {"digits": digits, **others}.items():
        fraction = answered(outputs.scores, threshold)
        cells = [_bold(kind), f"{len(outputs.scores):,}", f"{fraction:.1%}"]
        same = f"{answered(alike[kind].scores, threshold):.1%}" if kind in alike else ""
        rows.append(f"| {' | '.join([*cells, same])} |")
    return "\n".join(rows)


def figure(curves: dict[str, list[float]]) -> Figure:
    """Show the fraction of OOD samples that is answered against that of the digits."""
    drawn, axis = plt.subplots(figsize=(5, 3.4))
    for name, values in curves.items():
        axis.plot(FRACTIONS, values, label=name)
    axis.axvline(LEAST, color=figures.GREY, linewidth=0.8, linestyle=":")
    axis.axhline(MOST, color=figures.GREY, linewidth=0.8, linestyle=":")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set(xlabel="digits answered", ylabel="other images answered", ylim=(0, None))
    axis.legend()
    return figures.shown(drawn, reading(curves))


def reading(curves: dict[str, list[float]]) -> str:
    """Return what is answered of the other images where LEAST of the digits are, by score."""
    column = FRACTIONS.index(LEAST)
    texts = [f"{values[column]:.1%} by the {name}" for name, values in curves.items()]
    return f"Where {LEAST:.0%} of the digits are answered, so are other images: {', '.join(texts)}."


def histogram(scores: dict[str, np.ndarray | torch.Tensor], threshold: float,
              text: str) -> Figure:
    """Show the distributions of OOD scores [N] by name, a line at the threshold, and a reading."""
    drawn, axis = plt.subplots()
    low, high = np.percentile(np.concatenate(list(scores.values())), [0.5, 99.5])
    for name, values in scores.items():
        weights = np.full(len(values), 1 / len(values))
        axis.hist(np.clip(values, low, high), 39, (low, high), weights=weights, alpha=0.6,
                  label=name)
    axis.axvline(threshold, color=figures.GREY, linewidth=0.8, linestyle=":")
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set(xlabel="OOD score", ylabel="fraction of the images")
    axis.legend()
    return figures.shown(drawn, text)


def fractions_text(fractions: dict[str, float]) -> str:
    """Return what `held_out` found out, as a sentence."""
    worst = max(KINDS, key=fractions.get)
    whole = max((kind for kind in fractions if kind not in ("digits", *KINDS)), key=fractions.get)
    return (f"With a threshold from half of the digits, the model answers "
            f"{fractions['digits']:.1%} of the other half, and at most {fractions[worst]:.1%} "
            f"({worst}) of a kind without a whole digit. Of images with whole digits it answers up "
            f"to {fractions[whole]:.1%} ({whole}).")


def store(source: str, name: str, digits: Outputs, others: dict[str, Outputs], threshold: float,
          values: list[float]) -> dict:
    """Write metrics/know.json and the detector's curve metrics/know.csv; return the metrics."""
    fractions = {f"answered_{kind.replace(' ', '_')}": round(answered(each.scores, threshold), 4)
                 for kind, each in {"digits": digits, **others}.items()}
    metrics = {"data": source, "model": name} | fractions
    write("metrics/know.json", json.dumps(metrics, indent=2) + "\n")
    rows = [f"{fraction},{value:.4f}" for fraction, value in zip(FRACTIONS, values)]
    write("metrics/know.csv", "\n".join(["digits_answered,others_answered", *rows, ""]))
    return metrics
