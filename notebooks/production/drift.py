"""Do the requests to the server still look like the images that the model was evaluated on?

The features of both are projected to their principal components; each component is compared by the
two-sample test of Kolmogorov and Smirnov, with Bonferroni's correction (S. Rabanser, S. Guennemann,
Z. Lipton, Failing Loudly, https://arxiv.org/abs/1810.11953).
"""

import json
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.stats import binomtest, fisher_exact, ks_2samp

from mnist import figures
from mnist.data import Split
from nbproof.notebook import served, source, write
from nbproof.notebook.errors import UserError
from production.onnx_export import OnnxModel

PARTS = 10  # of the log, for what changes with time


@dataclass(frozen=True)
class Sample:
    """Features [N, F] and OOD scores [N] of some images."""

    features: np.ndarray
    scores: np.ndarray

    def roots(self) -> np.ndarray:
        """Return the signed square roots of the features, as the OOD detector uses them."""
        return np.sign(self.features) * np.sqrt(np.abs(self.features.astype(np.float64)))


def sample(model: OnnxModel, split: Split) -> Sample:
    """Return the sample of the images of `split`."""
    parts = torch.arange(len(split)).split(1000)
    outputs = [model(split.normalised(part).numpy())[1:] for part in parts]
    return Sample(*map(np.concatenate, zip(*outputs)))


def p_value(reference: Sample, inputs: Sample, components: int) -> float:
    """Return how likely so large a difference is if both come from the same distribution.

    It is the smallest p-value of the first `components` of `reference` and of the OOD score, times
    their number (Bonferroni).
    """
    roots = reference.roots()
    directions = np.linalg.eigh(np.cov(roots, rowvar=False))[1][:, ::-1][:, :components]
    old, new = (np.column_stack([(each.roots() - roots.mean(0)) @ directions, each.scores])
                for each in (reference, inputs))
    smallest = min(ks_2samp(*pair, method="asymp").pvalue for pair in zip(old.T, new.T))
    return min(1.0, float(smallest) * old.shape[1])


def read(newest: int | None) -> pd.DataFrame:
    """Return the newest answers of the version that answered last; UserError without any."""
    log = served.served(newest=newest, version=served.newest_version())
    if not log["id"]:
        raise UserError(f"{served.LOG} holds no answers yet: draw a digit on the page of nbproof "
                        "serve first.")
    return pd.DataFrame(log | {"features": list(log["features"])})


def model(log: pd.DataFrame) -> OnnxModel:
    """Return this folder's model with the name of the one that answered."""
    return OnnxModel(source(f"models/{log.model.iloc[-1]}.onnx"))


def logged(log: pd.DataFrame, model: OnnxModel) -> tuple[Sample, str]:
    """Return the sample of the log and a sentence about its origin.

    Where the log has the images, the `model` of this folder computes it: it may be another one than
    that which answered. UserError where the log has features of another model only.
    """
    features = np.stack(log.features)
    if log.input.notna().all():
        _, computed, scores = model(np.stack(log.input).reshape(-1, 1, 28, 28))
        same = computed.shape == features.shape and np.allclose(computed, features, atol=1e-2)
        origin = "" if same else ", computed by this folder's model, which is not the server's"
        return Sample(computed, scores), f"Features of the logged images{origin}."
    if features.shape[1] != model.feature_count or np.isnan(features).any():
        raise UserError(f"{served.LOG} holds {features.shape[1]} features of an answer, and models/"
                        f"{log.model.iloc[-1]}.onnx has {model.feature_count}: bring the model "
                        "that answered into this folder (nbproof pull).")
    return Sample(features, log.strangeness.to_numpy()), "Features as the log holds them."


def overview(log: pd.DataFrame) -> str:
    """Return how many answers there are, of which version, how many with a label or an image."""
    return (f"**{len(log):,} answers** of {log.model.iloc[-1]}, version {log.version.iloc[-1]}: "
            f"{log.label.count():,} with a label, {log.input.count():,} with their image.")


def shift(p: float | None, level: float, least: int) -> str:
    """Return the result of the test as a sentence; `p` is None for fewer than `least` answers."""
    if p is None:
        return f"Fewer than {least:,} answers: not tested."
    verdict = "**The inputs have changed**" if p < level else "No sign of a change"
    return f"{verdict}: p = {p:.2g} after the correction, and below {level:g} is an alarm."


def abstentions(log: pd.DataFrame, usual: np.ndarray, limit: float,
                level: float) -> tuple[str, bool]:
    """Return how many requests the model abstained from, and whether these are too many.

    They are compared with those of the validation images, whose OOD scores are `usual` [N], by
    Fisher's exact test.
    """
    count, expected = int(log.answer.isna().sum()), int((usual > limit).sum())
    pairs = [[count, len(log) - count], [expected, len(usual) - expected]]
    alarm = bool(fisher_exact(pairs, alternative="greater").pvalue < level)
    verdict = "**That is more than chance explains.**" if alarm else "That can be chance."
    return (f"The model abstained from {count:,} of {len(log):,} requests ({count / len(log):.1%}),"
            f" and from {expected / len(usual):.1%} of the validation images. {verdict}", alarm)


def agreed(log: pd.DataFrame) -> pd.Series:
    """Return whether the newest shadow gave the same answer, of the requests that it got, too."""
    versions = log.shadow_version.dropna()
    both = log[log.shadow_version == versions.iloc[-1]] if len(versions) else log[:0]
    return both.answer.fillna("?") == both.shadow_answer.fillna("?")


def quality(log: pd.DataFrame) -> str:
    """Return how often the shadow agreed, and how many of the labelled answers are correct."""
    same, labelled = agreed(log), log[log.label.notna()]
    correct = labelled.best == labelled.label
    return (f"The shadow agreed on {_fraction(same)}. Of the answers with a label, "
            f"{_fraction(correct)} are correct; people rather label mistakes than correct answers, "
            "so this is not the accuracy.")


def _fraction(values: pd.Series) -> str:
    """Return how many values are true, with Wilson's interval."""
    if not len(values):
        return "none of 0"
    low, high = binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
    return (f"{values.sum():,} of {len(values):,} ({values.mean():.1%}, interval {low:.1%} to "
            f"{high:.1%})")


def latency(log: pd.DataFrame, slow: float) -> tuple[str, bool]:
    """Return the median and the 99th percentile in ms, and whether that is over `slow`."""
    median, high = np.percentile(log.milliseconds, [50, 99])
    words = "**over**" if high > slow else "within"
    return (f"The median answer took {median:.1f} ms, the 99th percentile {high:.1f} ms: {words} "
            f"the limit of {slow:g} ms.", bool(high > slow))


def time_figure(log: pd.DataFrame, reading: str) -> Figure:
    """Show the fractions of abstentions and of the shadow's disagreements along the log."""
    lines = pd.DataFrame({"the model abstained": log.answer.isna().astype(float),
                          "the shadow disagreed": 1 - agreed(log).astype(float)}, index=log.index)
    means = lines.dropna(axis=1, how="all").groupby(np.arange(len(log)) * PARTS // len(log)).mean()
    axis = means.plot(marker="o", ylim=(0, None), ylabel="fraction of the answers",
                      xlabel="the log in equal parts, the oldest first", ax=plt.subplots()[1])
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figures.shown(axis.figure, reading)


def highest(log: pd.DataFrame, scores: np.ndarray,
            count: int = 20) -> tuple[torch.Tensor, list[str]]:
    """Return the logged images [N, 1, 28, 28] with the highest OOD scores, and their answers."""
    rows = log.assign(score=scores).dropna(subset="input").nlargest(count, "score")
    images = np.array([*rows.input], np.float32).reshape(-1, 1, 28, 28)
    return torch.from_numpy(images), [*rows.answer.fillna("? (" + rows.best + ")")]


def verdict(alarms: dict[str, bool]) -> str:
    """Write reports/drift.json for `nbproof drift`, and return the same as a sentence."""
    raised = [name for name, alarm in alarms.items() if alarm]
    write("reports/drift.json", json.dumps({"alarms": raised}) + "\n")
    return f"**Alarm: {'; '.join(raised)}.**" if raised else "**No alarm.**"
