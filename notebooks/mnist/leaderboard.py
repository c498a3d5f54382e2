"""What the comparison shows: tables, sentences and figures about several models, the best first."""

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist.comparison import Candidate
from mnist.data import Dataset
from mnist.evaluation import Evaluation, interval
from mnist.judge import McNemar
from mnist.plots import shown


def table(candidates: list[Candidate], dataset: Dataset, confidence: float) -> str:
    """All models, the best in bold, on the validation images, as a Markdown table."""
    lines = [
        f"On **{dataset.source}**, {len(dataset.validation):,} validation images:\n",
        f"| model | accuracy | {confidence:.0%} interval | loss | parameters |",
        "|:--|--:|:--:|--:|--:|",
    ]
    for place, each in enumerate(candidates):
        judged, (low, high) = each.validation, interval(each.validation, confidence)
        name = f"**{each.name}**" if place == 0 else each.name
        lines.append(
            f"| {name} | {judged.accuracy:.4f} | {low:.4f} to {high:.4f} | {judged.loss:.4f} | {each.parameters:,} |"
        )
    return "\n".join(lines)


def drawn(judged: dict[str, Evaluation], confidence: float) -> str:
    """All models on what people drew, as a Markdown table."""
    count = len(next(iter(judged.values())).labels)
    lines = [f"{count:,} drawings:\n", f"| model | accuracy | {confidence:.0%} interval |", "|:--|--:|:--:|"]
    for name, each in judged.items():
        low, high = interval(each, confidence)
        lines.append(f"| {name} | {each.accuracy:.4f} | {low:.4f} to {high:.4f} |")
    return "\n".join(lines)


def answers(candidates: list[Candidate], chosen: torch.Tensor) -> list[str]:
    """`true: answer answer ...` for the images `chosen`, the answers in the order of `candidates`."""
    labels, said = candidates[0].validation.labels, [each.validation.predictions for each in candidates]
    return [f"{labels[i]}: {' '.join(str(int(each[i])) for each in said)}" for i in chosen.tolist()]


def divided(candidates: list[Candidate], differing: torch.Tensor) -> str:
    """On how many images the models differ, and in which order their answers stand."""
    total, order = len(candidates[0].validation.labels), ", ".join(each.name for each in candidates)
    return f"They differ on **{len(differing):,}** of {total:,} images. The answers stand in the order {order}."


def lead(candidates: list[Candidate], test: McNemar | None, confidence: float) -> str:
    """Whether the champion's lead over the runner-up could be chance."""
    if test is None:
        return f"**{candidates[0].name}** is the only model: there is no runner-up."
    real = test.p_value < 1 - confidence
    verdict = "The lead is no accident." if real else "The lead could be chance: then prefer the smaller model."
    return (
        f"**{candidates[0].name}** leads **{candidates[1].name}**: {test.only_first} images only it gets right, "
        f"{test.only_second} only the other; $p = {power_of_ten(test.p_value)}$. {verdict}"
    )


def power_of_ten(number: float) -> str:
    """A number as LaTeX, with two digits: `0.12`, `8.1 \\cdot 10^{-7}`."""
    mantissa, _, exponent = f"{number:.2g}".partition("e")
    return f"{mantissa} \\cdot 10^{{{int(exponent)}}}" if exponent else mantissa


def tested(champion: Candidate, test: Evaluation, confidence: float) -> str:
    """The champion's accuracy on the test images, beside its accuracy on the validation images."""
    low, high = interval(test, confidence)
    return (
        f"**{champion.name}: test accuracy {test.accuracy:.4f}** ({confidence:.0%} interval {low:.4f} to {high:.4f}); "
        f"on validation it was {champion.validation.accuracy:.4f}."
    )


def curves(candidates: list[Candidate]) -> Figure:
    """Validation error by epoch for all models, on a logarithmic scale."""
    figure, axis = plt.subplots(figsize=(5, 3))
    for each in candidates:
        errors = [1 - row["validation_accuracy"] for row in each.history]
        axis.plot([row["epoch"] for row in each.history], errors, marker=".", label=each.name)
    axis.set(xlabel="epoch", ylabel="validation error", yscale="log")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend()
    return shown(figure)


def accuracies(candidates: list[Candidate], confidence: float) -> Figure:
    """Validation accuracy with its confidence interval, a line a model, in the order given from the top."""
    values = [each.validation.accuracy for each in candidates]
    low, high = zip(*(interval(each.validation, confidence) for each in candidates))
    figure, axis = plt.subplots(figsize=(5, 0.45 * len(candidates) + 0.8))
    places = range(len(candidates) - 1, -1, -1)
    spread = [[value - end for value, end in zip(values, low)], [end - value for value, end in zip(values, high)]]
    axis.errorbar(values, places, xerr=spread, fmt="o", capsize=4)
    axis.set(yticks=places, yticklabels=[each.name for each in candidates], ylim=(-0.6, len(candidates) - 0.4))
    axis.set_xlabel(f"validation accuracy, {confidence:.0%} interval")
    return shown(figure)
