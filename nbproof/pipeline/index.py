"""The pages of a project and reports/index.html with all results; git and DVC keep neither.

What varies from run to run (commit, date, versions) stands in the index alone.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dvc.utils.flatten import flatten

from nbproof.notebook import tracking
from nbproof.notebook.files import root, write_whole
from nbproof.pipeline import config
from nbproof.pipeline.dag import Stage, is_model
from nbproof.pipeline.numbers import is_number, is_of_test, number
from nbproof.runner import determinism, html, source

PLACE = "reports/index.html"


def pages(stages: dict[str, Stage]) -> list[str]:
    """Return the names of the pages: of each stage that runs a notebook."""
    return [stage.short for stage in stages.values() if stage.notebook]


def write_pages(stages: dict[str, Stage]) -> None:
    """Write the pages that are missing or not of the executed notebook as it is now."""
    for stage in stages.values():
        executed = root() / "reports" / f"{stage.short}.ipynb"
        if not stage.notebook or not executed.is_file():
            continue
        if html.stamp_of(executed.with_suffix(".html")) != html.stamp(executed):
            html.write(stage.short, (root() / stage.notebook).parent, pages(stages))


@dataclass(frozen=True)
class Results:
    """The models' metrics, of the project first: their `names`, and a row a model in the order of
    dvc.yaml, its name and its metrics as text. `best` is the best model, `champion` a sentence
    with the metrics that only the comparison has, such as those of test data."""

    names: list[str]
    rows: list[list[str]]
    best: str = ""
    champion: str = ""


def results(stages: dict[str, Stage]) -> Results:
    """Return what the models have reached; in CI, where people choose, nothing of the test data.

    One notebook that runs for many values has a row for each of them that measured the metric. In
    a project without a metric, all stages with metrics stand for models."""
    project, metric = config.load(), config.load().metric
    if metric.key:
        found = {stage.short: _metrics(stage.short) if is_model(stage) else _numbers(stage)
                 for stage in stages.values() if is_model(stage) or stage.values}
        found = {name: metrics for name, metrics in found.items() if metric.key in metrics}
    else:
        found = {stage.short: _numbers(stage) for stage in stages.values() if _numbers(stage)}
    keys = dict.fromkeys(key for metrics in found.values() for key in metrics)
    names = sorted(keys, key=lambda key: key != metric.key)  # the rest stays in its order
    rows = [[name, *("" if key not in metrics else number(metrics[key]) for key in names)]
            for name, metrics in found.items()]
    if not metric.key:
        return Results(names, rows)
    best = min(found, key=lambda name: metric.best_first(found[name][metric.key]), default="")
    if not (champion := project.compared().get("champion")):
        return Results(names, rows, best)
    own = [f"{_words(key)} {number(value)}" for key, value in _metrics(project.compare).items()
           if key not in names and not (is_of_test(key) and "CI" in os.environ)]
    return Results(names, rows, best, f"The champion is {', '.join([champion, *own])}.")


def _numbers(stage: Stage) -> dict[str, float]:
    """Return the numbers in a stage's files of metrics that are JSON; {} where they are a list."""
    numbers = {}
    for path in stage.metrics:
        if path.endswith(".json") and (root() / path).exists():
            content = json.loads((root() / path).read_text(encoding="utf-8"))
            numbers |= flatten(content) if isinstance(content, dict) else {}
    return {key: value for key, value in numbers.items() if is_number(value)}


def table(stages: dict[str, Stage]) -> str:
    """Return the results for a terminal; empty where there are none."""
    found = results(stages)
    rows = [["", *map(_words, found.names)], *found.rows] if found.rows else []
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
             for row in rows]
    return "\n".join(filter(None, [*lines, found.champion]))


def _metrics(name: str) -> dict[str, float]:
    content = config.load().metrics(name)
    return {key: value for key, value in content.items() if is_number(value)}


def _words(key: str) -> str:
    return key.replace("_", " ")


def is_current() -> bool:
    """Return whether the index is of the results that dvc.lock records, and shows no failure."""
    return html.stamp_of(root() / PLACE) == html.stamp(root() / "dvc.lock")


def write(stages: dict[str, Stage], failed: dict[str, str] | None = None,
          not_run: Iterable[str] = (), verdict: str = "") -> None:
    """Write the index: results, a card a notebook, and what varies from run to run.

    A notebook that runs for many values has a table with a row for each of them, and no cards.
    `failed` has the reason of each stage that failed, by its name; the pages of the stages
    `not_run` are of an earlier state. `verdict` is a sentence on what the run changed.
    """
    executed = {path.stem: path for path in sorted((root() / "reports").glob("*.ipynb"))}
    order = dict.fromkeys([*(stage.short for stage in stages.values()), *executed])
    metric = config.load().metric.key  # without one, all numbers stand in the first table
    found = results({name: stage for name, stage in stages.items()
                     if not (metric and stage.values)})
    cards = [_card(executed[name], found) for name in order if name in executed]
    values = {stage.short for stage in stages.values() if stage.values}
    failures = {card["name"]: f"This run failed at cell {card['failure']['cell']} of "
                              f"{card['name']}." for card in cards if card["failure"]}
    for name, reason in (failed or {}).items():
        failures.setdefault(stages[name].short, reason.splitlines()[0])
    # an index that shows a failure is never current, so the run that mends it writes it again
    stamp = "" if failures or not_run else html.stamp(root() / "dvc.lock")
    answers = {card["name"]: card["answer"] for card in cards}
    champion = answers.get(config.load().compare) or found.champion
    write_whole(root() / PLACE, html.fill(
        "results.html.j2", stamp=stamp, title=config.load().name, verdict=verdict,
        kind="model" if metric else "stage",
        champion=champion, names=found.names, rows=found.rows, best=found.best,
        tables=_tables(stages, cards), metric=_words(metric),
        cards=[card for card in cards if card["name"] not in values],
        failures=list(failures.values()), not_run=[stages[name].short for name in not_run],
        commit=tracking.commit(), changes=tracking.changes(), versions=_versions(),
        python=platform.python_version(), now=datetime.datetime.now().astimezone(),
        machine=determinism.machine(), settings=determinism.SETTINGS))


def _card(executed: Path, found: Results) -> dict:
    """Return what the index shows of an executed notebook: title, subtitle, first picture, its
    metric if it is a model, its conclusion, or its failure."""
    notebook = json.loads(executed.read_bytes())
    text = "\n\n".join("".join(cell["source"]) for cell in notebook["cells"]
                       if cell["cell_type"] == "markdown")
    title, subtitle = re.search(r"(?m)^# +(.+)", text), re.search(r"(?m)^> *(.+(?:\n>.+)*)", text)
    data = [output.get("data", {}) for cell in notebook["cells"]
            for output in cell.get("outputs", [])]
    pictures = ["".join(bundle["image/png"]).strip() for bundle in data if "image/png" in bundle]
    picture = "".join(pictures[:1])
    rows = {row[0]: row[1:] for row in found.rows}
    shows = executed.stem in rows and config.load().metric.key
    metric = f"{_words(found.names[0])} {rows[executed.stem][0]}" if shows else ""
    return {"name": executed.stem, "title": _plain(title[1] if title else executed.stem),
            "subtitle": _plain(subtitle[1] if subtitle else ""), "picture": picture,
            "is_figure": html.is_figure(picture), "metric": metric,
            "answer": _plain(source.conclusion(notebook["cells"])),
            "failure": notebook["metadata"].get("failure")}


def _tables(stages: dict[str, Stage], cards: list[dict]) -> list[list[dict]]:
    """Return a table for each notebook that runs for many values: a row a stage, which is its
    card with its values and the metric; without one the table shows conclusions."""
    tables, by_name = {}, {card["name"]: card for card in cards}
    for stage in stages.values():
        if stage.values and stage.short in by_name:
            value = _numbers(stage).get(config.load().metric.key, "")
            row = by_name[stage.short] | {"values": stage.values, "metric": number(value)}
            tables.setdefault(stage.notebook, []).append(row)
    return [*tables.values()]


def _plain(markdown: str) -> str:
    """Return a text without the marks of Markdown and the addresses of its links."""
    return re.sub(r"[*`$[]|\]\(.*?\)|(?<=\n)>", "", markdown)


def _versions() -> list[str]:
    """Return the installed versions of nbproof and of what the file of pins names."""
    pins = config.load().pins
    names = re.findall(r"(?m)^([\w.-]+)==", (root() / pins).read_text("utf-8") if pins else "")
    return [f"{name} {package.version}" for name in dict.fromkeys(["nbproof", *names])
            for package in importlib.metadata.distributions(name=name)]
