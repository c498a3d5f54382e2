"""The figures."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

BLUE = "#4486d6"


def separation(inputs: pd.DataFrame, answers: pd.Series) -> Figure:
    """Draw the share of each column's variance that lies between the classes.

    1: the column alone tells the classes apart; 0: it does not help.
    """
    means = inputs.groupby(answers.to_numpy()).transform("mean")
    share = (means.var(ddof=0) / inputs.var(ddof=0)).sort_values()
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.barh(share.index, share, color=BLUE)
    axes.set(xlabel="share of the variance between the answers", xlim=(0, 1))
    return figure


def confusion(said: pd.DataFrame) -> Figure:
    """Draw the confusion matrix: a row for each class, a column for each prediction."""
    figure, axes = plt.subplots(figsize=(4.2, 3.4), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        said.actual, said.predicted, cmap="Blues", colorbar=False, ax=axes)
    axes.set(xlabel="said", ylabel="right")
    return figure


def curve(rows: pd.DataFrame) -> Figure:
    """Draw the accuracy by the number of training rows."""
    figure, axes = plt.subplots(figsize=(5, 2.6), layout="constrained")
    axes.plot(rows["rows"], rows["accuracy"], "o-", color=BLUE)
    axes.set(xlabel="rows learnt from", ylabel="accuracy on validation", ylim=(None, 1.01))
    return figure
