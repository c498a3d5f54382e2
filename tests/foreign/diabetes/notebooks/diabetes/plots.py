"""The figure."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure


def answers(said: pd.DataFrame) -> Figure:
    """What was said by what is true; on the line both are the same."""
    figure, axes = plt.subplots(figsize=(4, 3.4), layout="constrained")
    axes.scatter(said.actual, said.predicted, s=10, color="#4486d6")
    axes.axline((150, 150), slope=1, color="gray")
    axes.set(xlabel="true progression", ylabel="predicted")
    return figure
