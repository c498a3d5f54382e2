"""Learning curves and the confusion matrix in what GitHub itself draws: Mermaid charts and tables."""

import math
from collections import Counter

from pipeline.report.safe import code, label
from pipeline.report.tables import decimal, table

BASE, BRANCH = "#8c959f", "#0969da"  # grey and blue, readable on GitHub's light and dark pages
POINTS, ROWS, CLASSES = 50, 25, 20


def numbers(curve: list[dict], column: str) -> list[float]:
    """The column's values, if every row has a finite one; else nothing."""
    values = [row.get(column) for row in curve]
    return values if all(isinstance(value, float) and math.isfinite(value) for value in values) else []


def chart(name: str, branch: list[float], base: list[float], column: str) -> str:
    """A Mermaid chart of two curves by epoch, the base's below the branch's; empty where a line would have no length."""
    if len(branch) < 2:
        return ""
    # Mermaid spreads a line over the whole axis, however few its points: the shorter one goes on flat.
    longest = max(len(branch), len(base))
    lines = [values + values[-1:] * (longest - len(values)) for values in (base, branch) if values]
    chosen = evenly(longest, POINTS)
    low, high = min(map(min, lines)), max(map(max, lines))
    margin = (high - low) * 0.05 or 0.001
    drawn = "\n".join(f"    line [{', '.join(f'{values[index]:.6g}' for index in chosen)}]" for values in lines)
    palette = f"{BASE}, {BRANCH}" if len(lines) == 2 else BRANCH
    return (
        f'```mermaid\n%%{{init: {{"themeVariables": {{"xyChart": {{"plotColorPalette": "{palette}"}}}}}}}}%%\nxychart-beta\n    title {label(name)}\n'
        f'    x-axis "epoch" 1 --> {longest}\n    y-axis {label(column.replace("_", " "))} {low - margin:.6g} --> {high + margin:.6g}\n{drawn}\n```'
    )


def curve_table(branch: list[float], base: list[float]) -> str:
    """The same numbers as a table; of a long training some epochs, the last among them."""
    values = {"branch": branch, "base": base} if base else {"branch": branch}
    chosen = evenly(max(map(len, values.values())), ROWS)
    rows = [[str(index + 1), *(decimal(each[index]) if index < len(each) else "" for each in values.values())] for index in chosen]
    return table(["epoch", *values], rows, "r" * (1 + len(values)))


def evenly(count: int, most: int) -> list[int]:
    """At most `most` indices below `count`, the first and the last among them."""
    return list(range(count)) if count <= most else [round(step * (count - 1) / (most - 1)) for step in range(most)]


def confusion(answers: list[tuple[str, str]]) -> str:
    """A table of how often each true class (rows) was predicted as which; of many classes, the most frequent mistakes."""
    counts = Counter(answers)
    classes = sorted({each for pair in answers for each in pair}, key=lambda each: (len(each), each))
    if len(classes) > CLASSES:
        mistakes = Counter({pair: count for pair, count in counts.items() if pair[0] != pair[1]})
        rows = [[code(actual), code(predicted), str(count)] for (actual, predicted), count in mistakes.most_common(CLASSES)]
        return table(["true", "predicted", "how often"], rows, "llr")
    rows = []
    for actual in classes:
        row = [counts[actual, predicted] for predicted in classes]
        rows.append([f"**{code(actual, 20)}**", *(f"**{count}**" if actual == predicted else str(count or "·") for predicted, count in zip(classes, row))])
    return table(["true ╲ predicted", *(code(each, 20) for each in classes)], rows, "r" * (1 + len(classes)))


def image_by_image(answers: list[tuple[str, str]], base: list[tuple[str, str]]) -> str:
    """How many answers became right and wrong, and how likely so uneven a split is by chance; empty where the questions differ."""
    if not answers or [actual for actual, _ in answers] != [actual for actual, _ in base]:
        return ""
    pairs = [(predicted == actual, was == actual) for (actual, predicted), (_, was) in zip(answers, base)]
    gained, lost = pairs.count((True, False)), pairs.count((False, True))
    if not gained + lost:
        return f"Answer by answer, the champion is right on the same {len(pairs):,} as the base's."
    return (
        f"Answer by answer against the base's champion, on the same {len(pairs):,}: {gained} newly right, {lost} newly wrong. "
        f"If both were equally good, a split as uneven as this would come up with probability {sign_test(gained, lost):.2g} (McNemar's exact test)."
    )


def sign_test(first: int, second: int) -> float:
    """Two-sided p-value of a split `first` : `second` of fair coin tosses (Q. McNemar, Psychometrika 12, 1947)."""
    tosses = first + second
    tail = sum(math.comb(tosses, count) for count in range(min(first, second) + 1))
    return min(1.0, float(2 * tail / 2**tosses)) if tosses <= 1000 else math.erfc((abs(first - second) - 1) / math.sqrt(2 * tosses))
