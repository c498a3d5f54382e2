"""What the figures say, as sentences and tables computed from the run, so that no reading goes stale."""

import torch
from IPython.display import Markdown, display

from digits.closer import Calibration
from digits.comparison import Candidate, McNemar, interval
from digits.data import Digits
from digits.training import Evaluation


def show(markdown: str) -> None:
    """Show a text on the page."""
    display(Markdown(markdown))


def fetched(source: str, tensors: dict[str, torch.Tensor]) -> str:
    """How many images there are, and of what kind."""
    images = tensors["train_images"]
    return (
        f"**{source}**: {len(images):,} images to learn and choose from, {len(tensors['test_images']):,} to test with, "
        f"each {' × '.join(map(str, images.shape[1:]))} in {int(images.max()) + 1} shades of grey."
    )


def balance(labels: torch.Tensor) -> str:
    """The most and the least frequent digit among labels [N]."""
    counts = torch.bincount(labels, minlength=10)
    factor = counts.max() / counts.min()
    verdict = "too little to weigh the classes" if factor < 1.5 else "enough to think of weighing the classes"
    return (
        f"In training the most frequent digit is **{counts.argmax()}** with {counts.max():,} images, the rarest **{counts.argmin()}** "
        f"with {counts.min():,}: a factor of {factor:.2f}, {verdict}."
    )


def loaded(digits: Digits) -> str:
    """What a model learns from."""
    return f"**{digits.source}**: {len(digits.train):,} training images, {len(digits.validation):,} validation images."


def losses(history: list[dict]) -> str:
    """How far training and validation loss are apart at the end."""
    train, validation = history[-1]["train_loss"], history[-1]["validation_loss"]
    verdict = (
        "it knows its training images better than new ones"
        if validation > train
        else "no sign of overfitting (training images may be moved, or met with dropout; validation images are not)"
    )
    return f"After {len(history)} epochs the training loss is {train:.4f}, the validation loss {validation:.4f}: {verdict}."


def reached(validation: Evaluation, floor: float) -> str:
    """The accuracy beside its floor."""
    return f"**Validation accuracy {validation.accuracy:.4f}** (floor {floor}), loss {validation.loss:.4f}."


def calibrated(groups: Calibration) -> str:
    """The expected calibration error, and which way it goes."""
    promised = ((groups.confidence * groups.counts).sum() / groups.counts.sum()).item()
    kept = ((groups.accuracy * groups.counts).sum() / groups.counts.sum()).item()
    verdict = "it promises about what it keeps" if abs(promised - kept) < 0.005 else "it is too sure" if promised > kept else "it is not sure enough"
    return f"Expected calibration error **{groups.error:.4f}**: it is sure to {promised:.1%} on average and right in {kept:.1%}, so {verdict}."


def refused(mistakes: torch.Tensor, share: float = 0.05) -> str:
    """What is gained by leaving the `share` of the least sure answers to a person; `mistakes` [N] among the k surest."""
    total, left = int(mistakes[-1]), int(mistakes[max(0, round(len(mistakes) * (1 - share)) - 1)])
    if not total:
        return "There is no mistake to find."
    return f"Leave the least sure {share:.0%} of the images to a person, and **{total - left} of {total}** mistakes go with them; {left} remain."


def more_images(rows: list[dict]) -> str:
    """What the last doubling of the training images brought."""
    (few, before), (all_, after) = ((row["images"], 1 - row["validation_accuracy"]) for row in rows[-2:])
    saved = 1 - after / before if before else 0.0
    verdict = "more images would help" if saved > 0.1 else "more images alone hardly help a training this short"
    return f"From {few:,} to {all_:,} images the error goes from {before:.2%} to {after:.2%} ({-saved:+.0%}): {verdict}."


def titles(evaluation: Evaluation, chosen: torch.Tensor) -> list[str]:
    """`true → predicted` for the images `chosen`."""
    return [f"{true} → {said}" for true, said in zip(evaluation.labels[chosen].tolist(), evaluation.predictions[chosen].tolist())]


def table(candidates: list[Candidate], digits: Digits, confidence: float) -> str:
    """All models, best first and in bold, on the validation images."""
    lines = [
        f"On **{digits.source}**, {len(digits.validation):,} validation images:\n",
        f"| model | accuracy | {confidence:.0%} interval | loss | parameters |",
        "|:--|--:|:--:|--:|--:|",
    ]
    for place, each in enumerate(candidates):
        low, high = interval(each.validation, confidence)
        name = f"**{each.name}**" if place == 0 else each.name
        lines.append(f"| {name} | {each.validation.accuracy:.4f} | {low:.4f} to {high:.4f} | {each.validation.loss:.4f} | {each.parameters:,} |")
    return "\n".join(lines)


def answers(candidates: list[Candidate], chosen: torch.Tensor) -> list[str]:
    """`true: answer answer ...` for the images `chosen`, the answers in the order of `candidates`."""
    labels = candidates[0].validation.labels
    return [f"{labels[i]}: {' '.join(str(int(each.validation.predictions[i])) for each in candidates)}" for i in chosen.tolist()]


def divided(candidates: list[Candidate], differing: torch.Tensor) -> str:
    """On how many images the models differ, and in which order their answers stand."""
    total, order = len(candidates[0].validation.labels), ", ".join(each.name for each in candidates)
    return f"They differ on **{len(differing):,}** of {total:,} images. The answers stand in the order {order}."


def lead(candidates: list[Candidate], test: McNemar | None, confidence: float) -> str:
    """Whether the champion's lead over the runner-up could be chance."""
    if test is None:
        return f"**{candidates[0].name}** is the only model: there is no runner-up to lead."
    verdict = "The lead is no accident." if test.p_value < 1 - confidence else "The lead could well be chance: then prefer the smaller model."
    return (
        f"**{candidates[0].name}** leads **{candidates[1].name}**: {test.only_first} images only it gets right, {test.only_second} only the other; "
        f"$p = {power_of_ten(test.p_value)}$. {verdict}"
    )


def power_of_ten(number: float) -> str:
    """A number as LaTeX, with two digits: `0.12`, `8.1 \\cdot 10^{-7}`."""
    mantissa, _, exponent = f"{number:.2g}".partition("e")
    return f"{mantissa} \\cdot 10^{{{int(exponent)}}}" if exponent else mantissa


def tested(champion: Candidate, test: Evaluation, confidence: float) -> str:
    """The champion's accuracy on the test images, beside what validation said."""
    low, high = interval(test, confidence)
    return (
        f"**{champion.name}: test accuracy {test.accuracy:.4f}** ({confidence:.0%} interval {low:.4f} to {high:.4f}); "
        f"validation said {champion.validation.accuracy:.4f}."
    )
