"""reports/index.html: results and pages at a glance, written after each run; neither git nor DVC keeps it.

What varies from run to run (commit, date, versions) stands here alone, so that pages keep their bytes. For the same
reason a page does not know its neighbours: it links to next/NAME.html, which is written here and leads on.
"""

import datetime
import html
import importlib.metadata
import platform
import re
import shutil
import subprocess

from nbproof.notebook import tracking
from nbproof.notebook.files import root, write_whole
from nbproof.pipeline import config
from nbproof.pipeline.dag import Stage, is_model
from nbproof.runner import determinism, layout

PLACE = "reports/index.html"


def results(found: dict[str, Stage]) -> tuple[list[str], list[list[str]]]:
    """The names of the models' numbers, the one that counts first, and a row for each model, the best first."""
    metric, numbers = config.load().metric, {}
    for stage in filter(is_model, found.values()):
        kept = _numbers(config.load(), stage.short)
        if metric.key in kept:
            numbers[stage.short] = kept
    names = list(dict.fromkeys([metric.key, *(key for kept in numbers.values() for key in kept)])) if numbers else []
    order = sorted(numbers, key=lambda name: metric.best_first(numbers[name][metric.key]))
    return names, [[name, *(_shown(numbers[name].get(key)) for key in names)] for name in order]


def champion(found: dict[str, Stage]) -> str:
    """The champion, and the numbers that only the comparison has, such as those of the test data; empty if none."""
    contract = config.load()
    name, numbers = contract.compared().get("champion"), _numbers(contract, contract.compare or "")
    own = [f"{key} {_shown(value)}" for key, value in numbers.items() if key not in results(found)[0]]
    return f"The champion is {', '.join([str(name), *own])}." if name else ""


def table(found: dict[str, Stage]) -> str:
    """The results for a terminal; empty where there are none."""
    names, rows = results(found)
    rows = [["", *names], *rows] if rows else []
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join(filter(None, [*lines, champion(found)]))


def _numbers(contract: config.Project, name: str) -> dict[str, float]:
    """The numbers of a file of metrics, which may not be there."""
    return {key: value for key, value in contract.metrics(name).items() if type(value) in (int, float)}


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def is_current() -> bool:
    """Whether the index is younger than every page and than dvc.lock."""
    index, sources = root() / PLACE, [root() / "dvc.lock", *(root() / "reports").glob("*.ipynb")]
    return index.exists() and all(each.stat().st_mtime <= index.stat().st_mtime for each in sources if each.exists())


def write(found: dict[str, Stage], not_run: set[str]) -> None:
    """Write the index and where each page's links lead; `not_run` are stages whose pages are of an earlier state."""
    order = [stage.short for stage in found.values() if stage.notebook]
    others = {path.stem for path in (root() / "reports").glob("*.html")} - {*order, "index", "changes"}
    tries = sorted(name for name in others if name.startswith("try-"))  # `nbproof try` made them of no notebook
    order += sorted(others - {*tries})
    pages = [name for name in order if (root() / "reports" / f"{name}.html").exists()]
    ring = ["index", *pages, "index"]
    for before, name, after in zip(ring, pages, ring[2:]):
        for folder, target in (("previous", before), ("next", after)):
            write_whole(root() / "reports" / folder / f"{name}.html",
                        f'<!doctype html><meta http-equiv="refresh" content="0; url=../{target}.html">'
                        f'<title>{target}</title><a href="../{target}.html">{target}</a>\n')
    old = {found[name].short for name in not_run}
    names, rows = results(found)
    head = "".join(f"<th>{html.escape(each)}</th>" for each in ["model", *names])
    lines = "".join(f'<tr><td><a href="{row[0]}.html">{row[0]}</a></td>'
                    f"{''.join(f'<td>{each}</td>' for each in row[1:])}</tr>" for row in rows)
    body = (f"<main>\n<h1>{config.load().name}</h1>\n<p>{html.escape(champion(found))}</p>\n"
            f'{f"<table class=numbers><tr>{head}</tr>{lines}</table>" if rows else ""}\n'
            f'<h2>Pages</h2>\n<ul class="cards">{"".join(_card(name, name in old) for name in pages)}</ul>\n'
            f"{_tries(tries)}"
            f"<h2>Made from</h2>\n<dl>{_facts()}</dl>\n</main>\n")
    write_whole(root() / PLACE, layout.whole(config.load().name, body))


def _tries(names: list[str]) -> str:
    """Links to the pages that ask a model in the browser; nothing where there are none."""
    links = ", ".join(f'<a href="{name}.html">{name.removeprefix("try-")}</a>' for name in names)
    return f"<p>Ask a model, in this browser: {links}.</p>\n" if names else ""


def _card(name: str, old: bool) -> str:
    """A page with its first picture, its title and its status, which a page of no notebook does not have."""
    from bs4 import BeautifulSoup  # a tenth of a second, and most runs change nothing

    shown = BeautifulSoup((root() / "reports" / f"{name}.html").read_bytes(), "html.parser")
    link = f'<a href="{name}.html">{html.escape(shown.title.get_text() if shown.title else name)}</a>'
    if not shown.select_one("nav.pages"):
        return f"<li><h3>{link}</h3></li>\n"
    status, kind = ("not run: this is an earlier state", "bad") if old else ("every cell ran", "good")
    if failed := shown.select_one(".failed strong"):
        status, kind = failed.get_text(), "bad"
    picture, subtitle = shown.select_one("main img"), shown.select_one("main blockquote")
    said = f"<p>{html.escape(subtitle.get_text(' ', strip=True))}</p>" if subtitle else ""
    return f'<li>{picture or ""}<h3>{link}</h3>{said}<p class="{kind}">{html.escape(status)}</p></li>\n'


def _facts() -> str:
    """Commit, date, versions and arithmetic, as terms and their descriptions."""
    asked = ["git", "status", "--porcelain", "--untracked-files=no"]
    changed = shutil.which("git") and subprocess.run(asked, cwd=root(), capture_output=True, text=True).stdout
    pins = config.load().pins
    text = (root() / pins).read_text(encoding="utf-8") if pins else ""
    names = ["nbproof", *dict.fromkeys(re.findall(r"(?m)^([\w.-]+)==", text))]
    settings = ", ".join(f"{name}={value}" for name, value in determinism.SETTINGS.items())
    facts = {
        "commit": tracking.commit() + (", and changes that are not committed" if changed else ""),
        "date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{each} {_version(each)}" for each in names)]),
        "arithmetic": f"{determinism.machine()}: {settings}",
    }
    return "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
