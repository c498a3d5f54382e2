"""Figures and sentences for a sweep: a table of trials, a row each, with what was tried and what it reached."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from nbproof.notebook.files import source

STATES = {"done": "#4486d6", "stopped early": "#b9c3cf", "failed": "#c0392b"}


class Trials:
    """A sweep's trials.csv; `tried` names the parameters, `metric` what counts, `goal` is min or max."""

    def __init__(self, path: str, tried: str, metric: str, goal: str):
        self.tried, self.metric, self.goal = tried.split(","), metric, goal
        self.title = metric.replace("_", " ")
        self.rows = pd.read_csv(source(path), dtype=dict.fromkeys(self.tried, str), keep_default_na=False,
                                na_values={metric: [""]})
        ended = self.rows[self.rows.state == "done"]
        self.done = ended.sort_values(metric, ascending=goal == "min", kind="stable")

    def scaled(self, name: str) -> tuple[pd.Series, list[str], bool]:
        """A parameter's values as numbers, what to write on its axis, whether it asks for a logarithmic one."""
        values = self.rows[name]
        try:
            numbers = values.astype(float)
        except ValueError:
            names = sorted(set(values), key=_place)
            return values.map(names.index).astype(float), names, False
        return numbers, [], bool(numbers.min() > 0 and numbers.max() / numbers.min() > 20)

    def window(self) -> tuple[float, float]:
        """The part of the metric's axis that tells good trials apart: all but the worst quarter."""
        reached = self.rows[self.metric][self.rows.state != "failed"].dropna()
        worst = reached.quantile(0.25 if self.goal == "max" else 0.75)
        low, high = sorted((float(worst), float(self.done[self.metric].iloc[0])))
        margin = 0.1 * (high - low) + 1e-4 * (abs(high) or 1)
        return low - margin, high + margin


def _place(choice: str) -> tuple[int, float, str]:
    """Where a choice stands on its axis: null, then numbers, then all else by its letters."""
    if choice == "null":
        return 0, 0.0, choice
    try:
        return 1, float(choice), choice
    except ValueError:
        return 2, 0.0, choice


def counted(trials: Trials) -> str:
    """How many trials ended in which way, and what stopping early saved."""
    number = {state: int((trials.rows.state == state).sum()) for state in STATES}
    planned, stopped = trials.rows.steps_planned.sum(), trials.rows[trials.rows.state == "stopped early"]
    left = (stopped.steps_planned - stopped.steps_done).sum()
    saved = f" Stopping early saved {left / planned:.0%} of {planned} steps." if planned else ""
    return (f"**{len(trials.rows)} trials**: {number['done']} ran to their end, {number['stopped early']} were stopped "
            f"early, {number['failed']} failed.{saved}")


def best(trials: Trials, count: int = 10) -> str:
    """The best trials as a Markdown table."""
    head = ["rank", trials.title, "steps", "seconds", *trials.tried]
    lines = [f"| {' | '.join(head)} |", f"|{'--:|' * len(head)}"]
    for rank, (_, row) in enumerate(trials.done.head(count).iterrows(), 1):
        cells = [str(rank), f"{row[trials.metric]:.4g}", f"{row.steps_done}", f"{row.seconds:.1f}"]
        lines.append(f"| {' | '.join([*cells, *(_short(row[name]) for name in trials.tried)])} |")
    return "\n".join(lines)


def _short(value: str) -> str:
    try:
        return f"{json.loads(value):.3g}"
    except (ValueError, TypeError):
        return value.replace("|", "\\|")


def effects(trials: Trials) -> Figure:
    """One panel a parameter: what each trial reached, by the value that it had."""
    count = len(trials.tried)
    figure, axes = plt.subplots(1, count, figsize=(min(14, 1 + 3 * count), 3), sharey=True, squeeze=False,
                                layout="tight")
    for axis, name in zip(axes[0], trials.tried):
        numbers, names, logarithmic = trials.scaled(name)
        _scatter(trials, axis, numbers)
        if logarithmic:
            axis.set_xscale("log")
        if names:
            axis.set_xticks(range(len(names)), names)
        axis.set_xlabel(name)
    axes[0][0].set_ylabel(trials.title)
    axes[0][-1].legend(frameon=False, fontsize=8)
    return figure


def _scatter(trials: Trials, axis, numbers: pd.Series) -> None:
    for state, colour in STATES.items():
        rows = trials.rows[trials.rows.state == state]
        axis.scatter(numbers[rows.index], rows[trials.metric], s=20, color=colour, label=state)
    axis.set_ylim(*trials.window())


def strongest(trials: Trials) -> str:
    """The parameter that goes most with the result, by rank correlation over the trials that ran to their end."""
    if len(trials.done) < 4:
        return "Too few trials came to their end to say which parameter matters."
    scaled = {name: trials.scaled(name) for name in trials.tried}
    numbers = {name: values[trials.done.index] for name, (values, names, _) in scaled.items() if not names}
    result = trials.done[trials.metric]
    found = {name: float(spearmanr(each, result).statistic) for name, each in numbers.items() if each.nunique() > 1}
    if numbers.keys() < set(trials.tried) and not found:
        return "None of the parameters whose choices have an order differs."
    if not found or result.nunique() < 2:
        return "Neither the parameters nor the results of the trials that came to their end differ."
    name = max(found, key=lambda each: abs(found[each]))
    way = "more is better" if (found[name] > 0) == (trials.goal == "max") else "less is better"
    return (f"Of the {len(trials.done)} trials that ran to their end, **{name}** goes most with the result (rank "
            f"correlation {found[name]:+.2f}: {way} in this range).")


def parallel(trials: Trials) -> Figure:
    """Parallel coordinates: a line a trial through its values, the better the darker; the last axis is the result."""
    figure, axis = plt.subplots(figsize=(10, 3.6), layout="tight")
    low, high = trials.window()
    reached = ((trials.rows[trials.metric] - low) / (high - low)).clip(0, 1)
    good = (reached if trials.goal == "max" else 1 - reached).where(trials.rows.state != "failed").fillna(0)
    columns = []
    for name in trials.tried:
        numbers, _, logarithmic = trials.scaled(name)
        numbers = np.log(numbers) if logarithmic else numbers
        columns.append((numbers - numbers.min()) / max(np.ptp(numbers), 1e-12))
    lines = np.array([*columns, reached.fillna(0)]).T
    for place in np.argsort(good.to_numpy(), kind="stable"):
        colour = STATES["done" if trials.rows.state[place] == "done" else "stopped early"]
        axis.plot(lines[place], color=colour, alpha=0.15 + 0.85 * good[place] ** 2, linewidth=1.5)
    axis.set_xticks(range(len(columns) + 1), [*trials.tried, trials.title])
    axis.set_yticks([0, 1], ["least", "most"])
    axis.grid(axis="x", color="#757a82", linewidth=0.6)
    return figure


def cost(trials: Trials) -> Figure:
    """What a trial reached against the seconds that it took."""
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="tight")
    _scatter(trials, axis, trials.rows.seconds)
    axis.set(xlabel="seconds", ylabel=trials.title)
    axis.legend(frameon=False, fontsize=8)
    return figure


def worth(trials: Trials) -> str:
    """The cheapest trial that is nearly as good as the best: within a hundredth of what the trials differ by."""
    top, values = trials.done.iloc[0], trials.done[trials.metric]
    near = trials.done[(values - top[trials.metric]).abs() <= 0.01 * (values.max() - values.min())]
    cheap = near.loc[near.seconds.idxmin()]
    enough = f"; {cheap.seconds:.0f} s were enough for {cheap[trials.metric]:.4g}."
    if cheap.trial == top.trial:
        enough = ", and none that is nearly as good was faster."
    return f"The best trial ({top[trials.metric]:.4g}) took {top.seconds:.0f} s{enough}"
