"""Figures on white, narrow enough for a phone, each shown with a reading computed from the run."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from matplotlib_inline.backend_inline import set_matplotlib_formats

from mnist import evaluation
from mnist.data import Dataset
from mnist.evaluation import Predictions
from mnist.models import Candidate
from nbproof.notebook import show

GREY = "#4d545c"
COLOURS = ["#2f6fc4", "#c45f1c", "#2b7d54", "#9c4a8e", "#8a6d10", "#2f7f8f", "#b93f43", "#6f5bd0"]
FEW = 20  # predictions in a group: the accuracy of a smaller one is mostly chance
DARK = 0.755  # of INK: from here on white text is read better than black text
INK = LinearSegmentedColormap.from_list("ink", ["#f1f2f4", "#1f4f96"])

set_matplotlib_formats("retina")
plt.rcParams.update({
    "figure.facecolor": "white", "figure.dpi": 80, "figure.figsize": (5, 3),
    "figure.constrained_layout.use": True, "font.size": 10, "axes.titlesize": 10,
    "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "axes.titlecolor": GREY,
    "xtick.color": GREY, "ytick.color": GREY, "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.8,
    "legend.frameon": False,
})


def shown(figure: Figure, reading: str = "") -> Figure:
    """Show the figure and its reading below it; return the figure."""
    plt.show()
    if reading:
        show(reading)
    return figure


def logarithmic(axis) -> None:
    """Make an axis logarithmic, with ticks such as 0.2, 0.5, 1 and no others."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
    axis.set_minor_locator(NullLocator())


def gallery(images: torch.Tensor, titles: list[str], columns: int = 5) -> Figure:
    """Draw images [N, 1, H, W] in rows, each with a short title above it."""
    side, gap = images.shape[-1], 9 if any(titles) else 1
    rows, wide = max(1, -(-len(images) // columns)), side + 2
    page = np.full((rows * (side + gap), columns * wide - 2), np.nan)  # one picture: it is faster
    figure, axis = plt.subplots(figsize=(5, 5 * page.shape[0] / page.shape[1]))
    for number, (image, title) in enumerate(zip(images.cpu(), titles)):
        top, left = number // columns * (side + gap) + gap, number % columns * wide
        page[top : top + side, left : left + side] = image[0]
        axis.text(left + side / 2, top - 1.5, title, ha="center", va="bottom")
    axis.imshow(page, cmap=INK)
    axis.set_axis_off()
    return shown(figure)


def lines(table: pd.DataFrame, ylabel: str, log: str = "", reading: str = "") -> Figure:
    """Draw the columns of a table against its index; `log` names logarithmic axes, such as "y"."""
    axis = table.plot(ylabel=ylabel, marker=".", legend=len(table.columns) > 1)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for name in log:
        logarithmic(getattr(axis, f"{name}axis"))
    return shown(axis.figure, reading)


def curves(history: list[dict]) -> Figure:
    """Draw the loss on both splits by epoch."""
    table = pd.DataFrame(history).set_index("epoch")
    train, validation, accuracy = table.iloc[-1]
    gain = accuracy - table["validation_accuracy"].iloc[len(table) // 2 - 1]
    return lines(table[["train_loss", "validation_loss"]], "cross-entropy [nats]", "y",
                 f"After {len(table)} epochs the training loss is {train:.4f} and the validation "
                 f"loss {validation:.4f}. The second half of the epochs changed the validation "
                 f"accuracy by {gain:+.4f}.")


def confusion_matrix(predictions: Predictions, dataset: Dataset) -> Figure:
    """Draw true against predicted classes. Shades are logarithmic, to show single mistakes."""
    counts, classes = evaluation.confusion(predictions), dataset.source.classes
    figure, axis = plt.subplots(figsize=(5, 4.4))
    shades = (counts + 1).log()
    axis.imshow(shades, cmap=INK)
    for row, column in counts.nonzero().tolist():
        colour = "white" if shades[row, column] > DARK * shades.max() else "black"
        text = {"ha": "center", "va": "center", "fontsize": 9, "color": colour}
        axis.text(column, row, int(counts[row, column]), **text)
    axis.set(xlabel="predicted", ylabel="true")
    axis.set_xticks(range(10), classes, rotation=90 if max(map(len, classes)) > 3 else 0)
    axis.set_yticks(range(10), classes)
    axis.spines[:].set_visible(False)
    one, other, count = evaluation.confused_pairs(predictions)[0]
    return shown(figure, f"{predictions.wrong:,} of {len(predictions):,} are wrong, {count:,} of "
                         f"them between {classes[one]} and {classes[other]}, the worst pair.")


def calibration(predictions: Predictions, doubtful: float = 0.05) -> Figure:
    """Draw accuracy against confidence, with the size of each group; small ones are hollow."""
    confidence, accuracy, counts = evaluation.calibration(predictions)
    figure, axis = plt.subplots(figsize=(5, 4))
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for *point, count in zip(confidence, accuracy, counts.tolist()):
        axis.plot(*point, "o", color=COLOURS[0], mfc=COLOURS[0] if count >= FEW else "white")
        below = {"xytext": (0, -14), "textcoords": "offset points", "ha": "center"}
        axis.annotate(f"{count:,}", point, fontsize=9, **below)
    low = min(confidence.min().item(), accuracy.min().item(), 0.5) - 0.1
    axis.set(xlabel="mean confidence", ylabel="accuracy", xlim=(low, 1.05), ylim=(low, 1.05))
    error = ((confidence - accuracy).abs() * counts).sum().item() / len(predictions)
    order = predictions.probabilities.amax(1).argsort(stable=True)
    caught = int((~predictions.right)[order[: round(doubtful * len(order))]].sum())
    return shown(figure, f"The expected calibration error is {error:.4f}. The {doubtful:.0%} of "
                         f"predictions with the least confidence contain {caught:,} of the "
                         f"{predictions.wrong:,} mistakes.")


def mistakes(predictions: Predictions, dataset: Dataset, count: int = 20) -> Figure:
    """Draw the mistakes made with the most confidence, titled `true → predicted`."""
    worst, classes = evaluation.worst_mistakes(predictions, count), dataset.source.classes
    pairs = zip(predictions.labels[worst].tolist(), predictions.predictions[worst].tolist())
    titles = [f"{classes[true]} → {classes[predicted]}" for true, predicted in pairs]
    return gallery(dataset.validation.images[worst.to(dataset.validation.labels.device)], titles)


def diagnostics(run, predictions: Predictions, dataset: Dataset) -> None:
    """Draw confusion, calibration and worst mistakes, which the notebook `compare` explains."""
    show("### Mistakes and confidence\n\n[The comparison](compare.ipynb) explains these figures.")
    run.figure("confusion", confusion_matrix(predictions, dataset))
    run.figure("calibration", calibration(predictions))
    run.figure("mistakes", mistakes(predictions, dataset))


def disagreements(models: list[Candidate], dataset: Dataset, count: int = 20) -> Figure:
    """Draw images on which models differ, titled `true: prediction prediction ...`."""
    differing = evaluation.disagreements([model.validation for model in models])
    classes, labels = dataset.source.classes, dataset.validation.labels
    titles = [f"{classes[labels[i]]}: "
              + " ".join(classes[model.validation.predictions[i]] for model in models)
              for i in differing[:count].tolist()]
    show(f"The models differ on {len(differing):,} of {len(labels):,} images. Above each: its true "
         f"class, then the predictions of {', '.join(model.name for model in models)}.")
    return gallery(dataset.validation.images[differing[:count]], titles)
