"""The figures: on white, so that they are read anywhere, and narrow enough for a phone. Each shows itself and returns
the figure."""

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter
from matplotlib_inline.backend_inline import set_matplotlib_formats

from mnist.evaluation import Calibration, Evaluation, confusion

GREY = "#4d545c"
COLOURS = ["#2f6fc4", "#c45f1c", "#2b7d54", "#9c4a8e", "#8a6d10", "#2f7f8f", "#b93f43", "#6f5bd0"]
FEW = 20
DARK = 0.755  # of INK: from here on white stands out from it, below black; at least 4.5 to 1
INK = LinearSegmentedColormap.from_list("ink", ["#f1f2f4", "#1f4f96"])

set_matplotlib_formats("retina")
plt.rcParams.update({
    "figure.facecolor": "white", "figure.dpi": 80, "figure.figsize": (5, 3),
    "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "axes.titlecolor": GREY,
    "xtick.color": GREY, "ytick.color": GREY, "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "font.size": 10,
    "lines.linewidth": 1.8, "legend.frameon": False, "figure.constrained_layout.use": True,
})


def shown(figure: Figure) -> Figure:
    """Show the figure on the page, and return it."""
    plt.show()
    return figure


def gallery(images: torch.Tensor, titles: list[str], columns: int = 5) -> Figure:
    """A grid of images [N, 1, 28, 28] with a short title each."""
    rows = max(1, -(-len(images) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(columns, 1.25 * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, title in zip(axes.flat, images.cpu(), titles):
        axis.imshow(image[0], cmap=INK, vmin=images.min().item(), vmax=images.max().item())
        axis.set_title(title)
    return shown(figure)


def class_balance(shares: dict[str, torch.Tensor]) -> Figure:
    """For each split the share of each digit, from its labels [N]."""
    figure, axis = plt.subplots()
    width = 0.8 / len(shares)
    for place, (name, labels) in enumerate(shares.items()):
        share = torch.bincount(labels.cpu(), minlength=10) / len(labels)
        middle = torch.arange(10) + (place - (len(shares) - 1) / 2) * width
        axis.bar(middle, share, width, label=f"{name} ({len(labels):,})")
    axis.axhline(0.1, color=GREY, linewidth=0.8, linestyle=":")
    axis.set(xticks=range(10), xlabel="digit", ylabel="share of the split")
    axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return shown(figure)


def curves(history: list[dict]) -> Figure:
    """Loss on both splits and validation accuracy by epoch."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(5, 5), sharex=True)
    epochs = [row["epoch"] for row in history]
    for split in ("train", "validation"):
        above.plot(epochs, [row[f"{split}_loss"] for row in history], marker=".", label=split)
    above.set(ylabel="cross-entropy [nats]", yscale="log")
    above.legend()
    below.plot(epochs, [row["validation_accuracy"] for row in history], marker=".", color=COLOURS[1])
    below.set(xlabel="epoch", ylabel="validation accuracy")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    return shown(figure)


def confusion_matrix(evaluation: Evaluation) -> Figure:
    """True digit against predicted digit; the shade is logarithmic, so that single mistakes are seen."""
    counts = confusion(evaluation)
    figure, axis = plt.subplots(figsize=(5, 4.4))
    shades = (counts + 1).log()
    axis.imshow(shades, cmap=INK)
    for row, column in counts.nonzero().tolist():
        colour = "white" if shades[row, column] > DARK * shades.max() else "black"
        axis.text(column, row, int(counts[row, column]), ha="center", va="center", fontsize=9, color=colour)
    axis.set(xticks=range(10), yticks=range(10), xlabel="predicted", ylabel="true")
    axis.spines[:].set_visible(False)
    return shown(figure)


def calibration(groups: Calibration) -> Figure:
    """The share of right answers against their confidence, with the number of answers in each group.

    A group of fewer than FEW answers is a hollow dot, which the line leaves out: its share is mostly chance.
    """
    figure, axis = plt.subplots(figsize=(5, 4))
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    enough = groups.counts >= FEW
    axis.plot(groups.confidence[enough], groups.accuracy[enough], color=COLOURS[0], marker="o")
    axis.plot(groups.confidence[~enough], groups.accuracy[~enough], color=COLOURS[0], marker="o", mfc="white", ls="")
    for *place, count in zip(groups.confidence, groups.accuracy, groups.counts.tolist()):
        axis.annotate(f"{count:,}", place, (0, -14), textcoords="offset points", ha="center", fontsize=9)
    low = min(groups.confidence.min().item(), groups.accuracy.min().item(), 0.5) - 0.1
    axis.set(xlabel="mean confidence", ylabel="share of right answers", xlim=(low, 1.05), ylim=(low, 1.05))
    return shown(figure)


def mistakes_by_confidence(mistakes: torch.Tensor) -> Figure:
    """How many of the most confident answers are wrong [N], against their share of all answers."""
    figure, axis = plt.subplots()
    share = torch.arange(1, len(mistakes) + 1) / len(mistakes)
    axis.fill_between(share, mistakes, color=COLOURS[1], alpha=0.25, linewidth=0)
    axis.plot(share, mistakes, color=COLOURS[1])
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="share of the answers, the most confident first", ylabel="mistakes among them")
    axis.set(xlim=(0, 1), ylim=(0, None))
    return shown(figure)


def accuracy_by_size(rows: list[dict]) -> Figure:
    """Validation error against the number of training images, both on logarithmic scales."""
    figure, axis = plt.subplots()
    sizes = [row["images"] for row in rows]
    axis.plot(sizes, [1 - row["validation_accuracy"] for row in rows], marker="o")
    axis.set(xscale="log", yscale="log", xlabel="training images", ylabel="validation error")
    axis.set(xticks=sizes, xticklabels=[f"{size:,}" for size in sizes])
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.yaxis.set_minor_formatter(PercentFormatter(1))
    axis.xaxis.set_minor_locator(NullLocator())
    return shown(figure)
