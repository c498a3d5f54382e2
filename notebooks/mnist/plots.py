"""The figures, readable on a light and on a dark page. Each shows itself and returns the figure."""

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter
from matplotlib_inline.backend_inline import set_matplotlib_formats

from mnist.evaluation import Calibration, Evaluation, confusion

GREY = "#757a82"
COLOURS = ["#4486d6", "#e07b39", "#3a9e6c", "#b65fa8", "#c9a227", "#5bb3c4", "#d4575a", "#8d7ae6"]
INK = LinearSegmentedColormap.from_list("ink", [(0.5, 0.5, 0.5, 0.10), (0.27, 0.53, 0.84, 1.0)])

set_matplotlib_formats("retina")
plt.rcParams.update({
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "figure.dpi": 80,
    "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "axes.titlecolor": GREY,
    "xtick.color": GREY, "ytick.color": GREY, "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "font.size": 10,
    "lines.linewidth": 1.8, "legend.frameon": False, "figure.constrained_layout.use": True,
})


def shown(figure: Figure) -> Figure:
    """Show the figure on the page, and return it."""
    plt.show()
    return figure


def gallery(images: torch.Tensor, titles: list[str], columns: int = 10) -> Figure:
    """A grid of images [N, 1, 28, 28] with a short title each."""
    rows = max(1, -(-len(images) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(0.95 * columns, 1.2 * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, title in zip(axes.flat, images.cpu(), titles):
        axis.imshow(image[0], cmap=INK, vmin=images.min().item(), vmax=images.max().item())
        axis.set_title(title, fontsize=9)
    return shown(figure)


def class_balance(shares: dict[str, torch.Tensor]) -> Figure:
    """For each split the share of each digit, from its labels [N]."""
    figure, axis = plt.subplots(figsize=(8, 2.6))
    width = 0.8 / len(shares)
    for place, (name, labels) in enumerate(shares.items()):
        share = torch.bincount(labels.cpu(), minlength=10) / len(labels)
        middle = torch.arange(10) + (place - (len(shares) - 1) / 2) * width
        axis.bar(middle, share, width, label=f"{name} ({len(labels):,})")
    axis.axhline(0.1, color=GREY, linewidth=0.8, linestyle=":")
    axis.set(xticks=range(10), xlabel="digit", ylabel="share of the split")
    axis.legend(ncols=len(shares), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return shown(figure)


def curves(history: list[dict]) -> Figure:
    """Loss on both splits and validation accuracy by epoch."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 2.8))
    epochs = [row["epoch"] for row in history]
    for split in ("train", "validation"):
        left.plot(epochs, [row[f"{split}_loss"] for row in history], marker=".", label=split)
    left.set(xlabel="epoch", ylabel="cross-entropy [nats]", yscale="log")
    left.legend()
    right.plot(epochs, [row["validation_accuracy"] for row in history], marker=".", color=COLOURS[1])
    right.set(xlabel="epoch", ylabel="validation accuracy")
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return shown(figure)


def confusion_matrix(evaluation: Evaluation) -> Figure:
    """True digit against predicted digit; the shade is logarithmic, so that single mistakes are seen."""
    counts = confusion(evaluation)
    figure, axis = plt.subplots(figsize=(5, 4.4))
    axis.imshow((counts + 1).log(), cmap=INK)
    for row, column in counts.nonzero().tolist():
        colour = "white" if row == column else COLOURS[1]
        axis.text(column, row, int(counts[row, column]), ha="center", va="center", fontsize=8, color=colour)
    axis.set(xticks=range(10), yticks=range(10), xlabel="predicted", ylabel="true")
    axis.spines[:].set_visible(False)
    return shown(figure)


def calibration(groups: Calibration) -> Figure:
    """The share of right answers against their confidence, the dots larger where there are more answers."""
    figure, axis = plt.subplots(figsize=(5, 3.6))
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    axis.plot(groups.confidence, groups.accuracy, color=COLOURS[0])
    axis.scatter(groups.confidence, groups.accuracy, s=15 + 45 * groups.counts.log10(), color=COLOURS[0])
    low = min(groups.confidence.min().item(), groups.accuracy.min().item(), 0.5) - 0.05
    axis.set(xlabel="mean confidence", ylabel="share of right answers", xlim=(low, 1.05), ylim=(low, 1.05))
    return shown(figure)


def mistakes_by_confidence(mistakes: torch.Tensor) -> Figure:
    """How many of the most confident answers are wrong [N], against their share of all answers."""
    figure, axis = plt.subplots(figsize=(8, 2.6))
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
    figure, axis = plt.subplots(figsize=(5, 3))
    sizes = [row["images"] for row in rows]
    axis.plot(sizes, [1 - row["validation_accuracy"] for row in rows], marker="o")
    axis.set(xscale="log", yscale="log", xlabel="training images", ylabel="validation error")
    axis.set(xticks=sizes, xticklabels=[f"{size:,}" for size in sizes])
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.yaxis.set_minor_formatter(PercentFormatter(1))
    axis.xaxis.set_minor_locator(NullLocator())
    return shown(figure)
