"""The pages of a project and reports/index.html with all results; git and DVC keep neither.

What varies from run to run (commit, date, versions) stands in the index alone.
"""

import datetime
import importlib.metadata
import json
import platform
import re
from pathlib import Path

from nbproof.notebook import tracking
from nbproof.notebook.files import root, write_whole
from nbproof.pipeline import config
from nbproof.pipeline.dag import Stage, is_model
from nbproof.runner import determinism, html

PLACE = "reports/index.html"


def write_pages(found: dict[str, Stage]) -> None:
    """Write the pages that are missing or not of the executed notebook as it is now."""
    for stage in found.values():
        executed = root() / "reports" / f"{stage.short}.ipynb"
        if not stage.notebook or not executed.is_file():
            continue
        if html.stamp_of(executed.with_suffix(".html")) != html.stamp(executed):
            html.write(stage.short, (root() / stage.notebook).parent)


def results(found: dict[str, Stage]) -> tuple[list[str], list[list[str]], str]:
    """Return the names of the models' numbers, a row a model, and a sentence on the champion.

    The project's metric and the best model come first. A row is a model's name and its numbers as
    text. The sentence has the numbers that only the comparison has, such as those of test data."""
    project, metric = config.load(), config.load().metric
    models = {stage.short: _numbers(stage.short) for stage in found.values() if is_model(stage)}
    order = sorted((name for name, numbers in models.items() if metric.key in numbers),
                   key=lambda name: metric.best_first(models[name][metric.key]))
    names = list(dict.fromkeys(key for name in order for key in [metric.key, *models[name]]))
    rows = [[name, *(_shown(models[name].get(key)) for key in names)] for name in order]
    if not (champion := project.compared().get("champion")):
        return names, rows, ""
    own = [f"{key} {_shown(value)}" for key, value in _numbers(project.compare).items()
           if key not in names]
    return names, rows, f"The champion is {', '.join([champion, *own])}."


def table(found: dict[str, Stage]) -> str:
    """Return the results for a terminal; empty where there are none."""
    names, rows, champion = results(found)
    rows = [["", *names], *rows] if rows else []
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
             for row in rows]
    return "\n".join(filter(None, [*lines, champion]))


def _numbers(name: str) -> dict[str, float]:
    content = config.load().metrics(name)
    return {key: value for key, value in content.items() if type(value) in (int, float)}


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def is_current() -> bool:
    """Return whether the index is of the results that dvc.lock records, and shows no failure."""
    return html.stamp_of(root() / PLACE) == html.stamp(root() / "dvc.lock")


def write(found: dict[str, Stage], not_run: set[str]) -> None:
    """Write the index; the pages of the stages `not_run` are of an earlier state."""
    executed = {path.stem: path for path in sorted((root() / "reports").glob("*.ipynb"))}
    order = dict.fromkeys([*(stage.short for stage in found.values()), *executed])
    cards = [_card(executed[name]) for name in order if name in executed]
    # an index that shows a failure is never current, so the run that mends it writes it again
    failed = not_run or any(card["failure"] for card in cards)
    stamp = "" if failed else html.stamp(root() / "dvc.lock")
    names, rows, champion = results(found)
    write_whole(root() / PLACE, html.fill(
        "results.html.j2", stamp=stamp, title=config.load().name, champion=champion, names=names,
        rows=rows, cards=cards, not_run=[found[name].short for name in not_run],
        commit=tracking.commit(), changes=tracking.changes(), versions=_versions(),
        python=platform.python_version(), now=datetime.datetime.now().astimezone(),
        machine=determinism.machine(), settings=determinism.SETTINGS))


def _card(executed: Path) -> dict:
    """Return what the index shows of an executed notebook: title, subtitle, picture, failure."""
    notebook = json.loads(executed.read_bytes())
    text = "\n\n".join("".join(cell["source"]) for cell in notebook["cells"]
                       if cell["cell_type"] == "markdown")
    title, subtitle = re.search(r"(?m)^# +(.+)", text), re.search(r"(?m)^> *(.+(?:\n>.+)*)", text)
    data = [output.get("data", {}) for cell in notebook["cells"]
            for output in cell.get("outputs", [])]
    pictures = ["".join(bundle["image/png"]).strip() for bundle in data if "image/png" in bundle]
    return {"name": executed.stem, "title": _plain(title[1] if title else executed.stem),
            "subtitle": _plain(subtitle[1] if subtitle else ""), "picture": "".join(pictures[:1]),
            "failure": notebook["metadata"].get("failure")}


def _plain(markdown: str) -> str:
    """Return a text without the marks of Markdown and the addresses of its links."""
    return re.sub(r"[*`$[]|\]\(.*?\)|(?<=\n)>", "", markdown)


def _versions() -> list[str]:
    """Return the installed versions of nbproof and of what the file of pins names."""
    pins = config.load().pins
    names = re.findall(r"(?m)^([\w.-]+)==", (root() / pins).read_text("utf-8") if pins else "")
    return [f"{name} {package.version}" for name in dict.fromkeys(["nbproof", *names])
            for package in importlib.metadata.distributions(name=name)]
