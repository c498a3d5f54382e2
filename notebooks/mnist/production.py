"""What the page of the watch shows: the server's log beside the validation images, in tables, sentences and figures."""

import json

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.stats import binomtest

from mnist import watching
from mnist.data import Split
from mnist.plots import shown
from mnist.portable import Portable
from nbproof.notebook import served, source, write
from nbproof.notebook.errors import UserError

PARTS = 10  # of the log, for what changes with time


def read(newest: int | None) -> dict:
    """The newest answers of the version that answered last; UserError where there is none."""
    version = served.newest_version()
    log = served.served(newest=newest, version=version)
    if not log["id"]:
        raise UserError(f"{served.LOG} holds no answer yet: ask the server something first (nbproof serve).")
    return log


def model(log: dict) -> Portable:
    """The model of this folder that has the name of the one that answered."""
    return Portable(source(f"models/{log['model'][-1]}.onnx"))


def overview(log: dict) -> str:
    """How many answers there are, of which version, and how many have a label."""
    labels = sum(label is not None for label in log["label"])
    images = sum(each is not None for each in log["input"])
    return (
        f"**{len(log['id']):,} answers** of {log['model'][-1]}, version {log['version'][-1]}; {labels:,} of them have "
        f"a label that a person gave, {images:,} their image."
    )


def seen(log: dict, asked: Portable) -> tuple[np.ndarray, np.ndarray, str]:
    """Features [N, F] and strangeness [N] of the logged answers, and a sentence on where they come from.

    Where the log has the images, the model of this folder looks at them again: it need not be the very one that
    answered. UserError where there is no image, and the features are of another model.
    """
    if all(each is not None for each in log["input"]):
        said = asked(np.stack(log["input"]).reshape(-1, 1, 28, 28))
        features = said["features"]
        same = features.shape == log["features"].shape and np.allclose(features, log["features"], atol=1e-2)
        words = "" if same else ", by the model of this folder, which is not the one that answered"
        return features, said["strangeness"], f"Features of the logged images{words}."
    expected = int(asked.session.get_outputs()[1].shape[1])
    if log["features"].shape[1] != expected or np.isnan(log["features"]).any():
        raise UserError(
            f"{served.LOG} holds {log['features'].shape[1]} features of an answer, models/{log['model'][-1]}.onnx has "
            f"{expected}: bring the model that answered into this folder (dvc checkout, or dvc pull)."
        )
    return log["features"], log["strangeness"], "Features as the log holds them."


def moved(found: watching.Shift | None, count: int, least: int) -> str:
    """What the test says."""
    if found is None:
        return f"Only {count:,} answers: fewer than {least:,} are not tested."
    verdict = "**The inputs have changed.**" if found.alarm else "No sign of a change."
    return (
        f"{verdict} The smallest of {len(found.p_values)} p-values, corrected for their number, is {found.p:.2g}; "
        f"below {found.level:g} is an alarm."
    )


def unknown(log: dict, usual: np.ndarray, limit: float, level: float) -> tuple[str, bool]:
    """How many were not answered, beside the validation images, whose strangeness is `usual` [N] and of which none
    above the `limit` is answered; and whether that is too many to be chance."""
    count, of, among = sum(each is None for each in log["answer"]), len(log["answer"]), int((usual > limit).sum())
    alarm = watching.too_many(count, of, among, len(usual), level)
    words = "**That is too many to be chance.**" if alarm else "That can be chance."
    said = (f"\"I do not know\" was the answer to {count:,} of {of:,} ({count / of:.1%}); of the validation images it "
            f"is that to {among / len(usual):.1%}. {words}")
    return said, alarm


def agreement(log: dict) -> str:
    """How often the newest shadow would have said the same, "I do not know" too, with Wilson's interval."""
    newest, differs = _differs(log)
    if newest is None:
        return "No shadow answered beside the champion."
    pairs = [each for each in differs if each is not None]
    same = pairs.count(False)
    return (
        f"The shadow ({newest}) would have said the same to {same:,} of {len(pairs):,} "
        f"({_share(same, len(pairs))})."
    )


def _differs(log: dict) -> tuple[str | None, list[bool | None]]:
    """The newest shadow, and for each answer whether it said something else; None where it was not asked."""
    newest = next((version for version in reversed(log["shadow_version"]) if version is not None), None)
    rows = zip(log["answer"], log["shadow_answer"], log["shadow_version"])
    return newest, [None if newest is None or version != newest else answer != other for answer, other, version in rows]


def labelled(log: dict) -> str:
    """How many of the answers were right, where a person said what it was."""
    rows = [(best, label) for best, label in zip(log["best"], log["label"]) if label is not None]
    if not rows:
        return "No answer has a label."
    right = sum(best == label for best, label in rows)
    return (
        f"Of {len(rows):,} answers with a label {right:,} are right ({_share(right, len(rows))}). People "
        "correct what is wrong rather than confirm what is right, so this is no accuracy."
    )


def _share(count: int, of: int) -> str:
    """A share with Wilson's interval."""
    low, high = binomtest(count, of).proportion_ci(method="wilson")
    return f"{count / of:.1%}, interval {low:.1%} to {high:.1%}"


def latency(log: dict, slow: float) -> tuple[str, bool]:
    """The median and the 99th percentile of the milliseconds, and whether the latter is over `slow`."""
    times = log["milliseconds"][~np.isnan(log["milliseconds"])]
    if not len(times):
        return "The log holds no times.", False
    half, most = np.percentile(times, [50, 99])
    alarm = bool(most > slow)
    words = f"**over the {slow:g} ms that are allowed**" if alarm else f"within the {slow:g} ms that are allowed"
    return f"Half of the answers took less than {half:.1f} ms, 99 of 100 less than {most:.1f} ms, {words}.", alarm


def answers(log: dict, validation: Split) -> str:
    """The share of each answer beside the share of the digit among the validation images, as a Markdown table."""
    usual = torch.bincount(validation.labels, minlength=10) / len(validation)
    lines = ["| answer | answers | share | of the validation images |", "|:--|--:|--:|--:|"]
    for digit, share in enumerate(usual.tolist()):
        count = log["answer"].count(str(digit))
        lines.append(f"| {digit} | {count:,} | {count / len(log['answer']):.1%} | {share:.1%} |")
    return "\n".join(lines)


def strangeness(usual: np.ndarray, now: np.ndarray, limit: float) -> Figure:
    """How strange the validation images are, and the logged ones; the limit is the dotted line."""
    figure, axis = plt.subplots()
    low, high = np.percentile(np.concatenate([usual, now]), [0.5, 99.5])
    edges = np.linspace(low, high, 40)
    for values, name in ((usual, "validation"), (now, "log")):
        axis.hist(values.clip(low, high), edges, weights=np.full(len(values), 1 / len(values)), alpha=0.6, label=name)
    axis.axvline(limit, color="#4d545c", linewidth=0.8, linestyle=":")
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set(xlabel="strangeness", ylabel="share of the images")
    axis.legend()
    return shown(figure)


def over_time(log: dict) -> Figure:
    """The share without an answer, and the share on which the shadow differs, in equal parts of the log."""
    figure, axis = plt.subplots()
    parts = np.array_split(np.arange(len(log["id"])), min(PARTS, len(log["id"])))
    unknown = [np.mean([log["answer"][row] is None for row in part]) for part in parts]
    axis.plot(range(1, len(parts) + 1), unknown, marker="o", label="I do not know")
    newest, differs = _differs(log)
    if newest is not None:
        asked = [[differs[row] for row in part if differs[row] is not None] for part in parts]
        differs = [np.mean(part) if part else np.nan for part in asked]
        axis.plot(range(1, len(parts) + 1), differs, marker="o", label="the shadow differs")
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set(xlabel=f"part of the log, the oldest first ({len(parts[0])} answers each)", ylabel="share", ylim=(0, None))
    axis.legend()
    return shown(figure)


def strangest(log: dict, scores: np.ndarray, count: int = 20) -> tuple[torch.Tensor, list[str]]:
    """The strangest logged images [N, 1, 28, 28], and what was said of each; none where the log has no images."""
    rows = [row for row in np.argsort(-scores, kind="stable").tolist() if log["input"][row] is not None][:count]
    images = [torch.from_numpy(log["input"][row].copy()).view(1, 28, 28) for row in rows]
    words = [log["answer"][row] or f"? ({log['best'][row]})" for row in rows]
    return (torch.stack(images) if images else torch.zeros(0, 1, 28, 28)), words


def verdict(alarms: dict[str, bool]) -> str:
    """Write reports/drift.json for whoever started the notebook, and say the same."""
    raised = [name for name, alarm in alarms.items() if alarm]
    write("reports/drift.json", json.dumps({"alarms": raised}) + "\n")
    return f"**Alarm: {'; '.join(raised)}.**" if raised else "No alarm."
