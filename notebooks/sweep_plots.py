"""Figures and sentences for a sweep: a table of trials, one row each, with what was tried and what it reached."""

import csv

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from digits import paths

STATES = {"done": "#4486d6", "stopped early": "#b9c3cf", "failed": "#c0392b"}


class Trials:
    """The rows of a sweep's trials.csv, with numbers as numbers; `tried` are the parameters, `metric` what counts."""

    def __init__(self, path: str, tried: str, metric: str):
        with paths.source(path).open(newline="", encoding="utf-8") as file:
            self.rows = list(csv.DictReader(file))
        self.tried, self.metric = [name for name in tried.split(",") if name], metric
        for row in self.rows:
            for name in (metric, "epochs_done", "epochs_planned", "seconds"):
                row[name] = float(row[name] or "nan")
        self.done = sorted((row for row in self.rows if row["state"] == "done"), key=lambda row: -row[metric])

    def scaled(self, name: str) -> tuple[np.ndarray, list[str], bool]:
        """The values of a parameter over all trials as numbers, what to write on its axis, and whether it asks for a logarithmic one."""
        values = [row[name] for row in self.rows]
        try:
            numbers = np.array([float(value) for value in values])
        except ValueError:
            names = sorted(set(values))
            return np.array([float(names.index(value)) for value in values]), names, False
        return numbers, [], bool(numbers.min() > 0 and numbers.max() / numbers.min() > 20)


def counted(trials: Trials) -> str:
    """How many trials ended in which way, and what stopping early saved."""
    number = {state: sum(row["state"] == state for row in trials.rows) for state in STATES}
    ran, planned = (sum(row[f"epochs_{what}"] for row in trials.rows) for what in ("done", "planned"))
    return (
        f"**{len(trials.rows)} trials**: {number['done']} trained to their end, {number['stopped early']} stopped early, {number['failed']} failed. "
        f"Of {planned:.0f} planned epochs {ran:.0f} were trained: stopping early saved {1 - ran / max(1, planned):.0%}."
    )


def best(trials: Trials, count: int = 10) -> str:
    """The best trials as a Markdown table."""
    head = ["rank", trials.metric.replace("_", " "), "epochs", "seconds", *trials.tried]
    lines = [f"| {' | '.join(head)} |", f"|{'--:|' * len(head)}"]
    for rank, row in enumerate(trials.done[:count], 1):
        cells = [str(rank), f"{row[trials.metric]:.4f}", f"{row['epochs_done']:.0f}", f"{row['seconds']:.1f}", *(_short(row[name]) for name in trials.tried)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(value: str) -> str:
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value


def _window(trials: Trials) -> tuple[float, float]:
    """The part of the metric's axis that tells good trials apart: the upper three quarters of what was reached."""
    reached = np.array([row[trials.metric] for row in trials.rows if row["state"] != "failed"])
    low = float(np.quantile(reached, 0.25))
    high = float(reached.max())
    return low - 0.1 * (high - low) - 1e-4, high + 0.1 * (high - low) + 1e-4


def effects(trials: Trials) -> Figure:
    """One panel a parameter: what each trial reached, by the value that it had."""
    figure, axes = plt.subplots(1, len(trials.tried), figsize=(min(14, 3.2 * len(trials.tried)), 3), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], trials.tried):
        numbers, names, logarithmic = trials.scaled(name)
        for state, colour in STATES.items():
            chosen = [place for place, row in enumerate(trials.rows) if row["state"] == state]
            axis.scatter(numbers[chosen], [trials.rows[place][trials.metric] for place in chosen], s=18, color=colour, label=state)
        if logarithmic:
            axis.set_xscale("log")
        if names:
            axis.set_xticks(range(len(names)), names)
        axis.set_xlabel(name)
    axes[0][0].set_ylabel(trials.metric.replace("_", " "))
    axes[0][0].set_ylim(*_window(trials))
    axes[0][-1].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def strongest(trials: Trials) -> str:
    """The parameter whose value goes most with the result, by Spearman's rank correlation over the trials that were trained to their end."""
    if len(trials.done) < 4:
        return "Too few trials came to their end to say which parameter matters."
    from scipy.stats import spearmanr

    place = {row["trial"]: number for number, row in enumerate(trials.rows)}
    found = []
    for name in trials.tried:
        numbers = trials.scaled(name)[0][[place[row["trial"]] for row in trials.done]]
        if len(set(numbers)) > 1:
            found.append((abs(value := float(spearmanr(numbers, [row[trials.metric] for row in trials.done]).statistic)), value, name))
    if not found:
        return "No parameter was varied among the trials that came to their end."
    _, value, name = max(found)
    way = "more is better" if value > 0 else "less is better"
    return f"Of the {len(trials.done)} trials trained to the end, **{name}** goes most with the result (rank correlation {value:+.2f}: {way} in this range)."


def parallel(trials: Trials) -> Figure:
    """Parallel coordinates: a line a trial through its values, the better the darker; the last axis is the result."""
    figure, axis = plt.subplots(figsize=(10, 3.6))
    columns = []
    for name in trials.tried:
        numbers, _, logarithmic = trials.scaled(name)
        numbers = np.log(numbers) if logarithmic else numbers
        columns.append((numbers - numbers.min()) / max(np.ptp(numbers), 1e-12))
    low, high = _window(trials)
    reached = np.array([row[trials.metric] if row["state"] != "failed" else low for row in trials.rows])
    columns.append(np.clip((reached - low) / (high - low), 0, 1))
    for line, row in sorted(zip(np.array(columns).T, trials.rows), key=lambda pair: pair[0][-1]):
        axis.plot(line, color="#4486d6" if row["state"] == "done" else "#b9c3cf", alpha=0.15 + 0.85 * float(line[-1]) ** 2, linewidth=1.5)
    axis.set_xticks(range(len(columns)), [*trials.tried, trials.metric.replace("_", " ")])
    axis.set_yticks([0, 1], ["least", "most"])
    for place in range(len(columns)):
        axis.axvline(place, color="#757a82", linewidth=0.6)
    figure.tight_layout()
    return figure


def cost(trials: Trials) -> Figure:
    """What a trial reached against the seconds that it took."""
    figure, axis = plt.subplots(figsize=(6.4, 3.6))
    for state, colour in STATES.items():
        chosen = [row for row in trials.rows if row["state"] == state]
        axis.scatter([row["seconds"] for row in chosen], [row[trials.metric] for row in chosen], s=22, color=colour, label=state)
    axis.set_ylim(*_window(trials))
    axis.set_xlabel("seconds")
    axis.set_ylabel(trials.metric.replace("_", " "))
    axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def worth(trials: Trials) -> str:
    """The cheapest trial that is within a thousandth of the best."""
    if not trials.done:
        return "No trial came to its end."
    top = trials.done[0]
    cheap = min((row for row in trials.done if row[trials.metric] >= top[trials.metric] - 0.001), key=lambda row: row["seconds"])
    if cheap is top:
        return f"The best trial ({top[trials.metric]:.4f}) took {top['seconds']:.0f} s, and none within 0.001 of it was faster."
    return f"The best trial ({top[trials.metric]:.4f}) took {top['seconds']:.0f} s; {cheap['seconds']:.0f} s were enough for {cheap[trials.metric]:.4f}."
