"""The page of a review: every changed notebook before and after, then every page of the branch.

One file that opens by itself, without a script; `#NAME` leads to the notebook NAME.
"""

import html
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from nbformat import NotebookNode

from nbproof.notebook.files import root
from nbproof.pipeline.numbers import number
from nbproof.pipeline.verdict import MARKS, Verdict
from nbproof.review import plots
from nbproof.review.collect import Facts
from nbproof.review.notebook_diff import CellDiff, compare
from nbproof.runner import cells
from nbproof.runner import html as pages

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Drawn:
    """The branch's executed notebooks as HTML, and what differs from the base's, by name."""

    bodies: dict[str, str]
    diffs: dict[str, list[CellDiff]]


def draw(facts: Facts) -> Drawn:
    """Draw every executed notebook of the branch, and compare those that ran with the base's."""
    bodies, diffs = {}, {}
    for each in facts.results:
        old, new = each.notebooks
        if new is None:
            continue
        body = _body(new, each.page)
        if old is not None and each.status == "ran":
            diffs[each.page] = compare(old, new, _body(old, each.page), body)
        bodies[each.page] = str(body)
    return Drawn(bodies, diffs)


def _body(notebook: NotebookNode, name: str):
    """Return a notebook's HTML whose ids begin with its name: many share the page."""
    body = cells.body(notebook, root() / "notebooks")
    for tag in body.find_all(True):
        for key, value in tag.attrs.items():
            if key == "id" and not value.startswith("cell-id="):
                tag[key] = f"{name}.{value}"
            elif isinstance(value, str) and value.startswith("#"):
                tag[key] = f"#{quote(name)}.{value[1:]}"
            elif isinstance(value, str) and "url(#" in value:  # of a drawing
                tag[key] = re.sub(r"url\(#", f"url(#{name}.", value)
    return body


def render(facts: Facts, verdict: Verdict, drawn: Drawn, published: str = "") -> str:
    """Return the page as HTML; `published` is where the default branch's pages are, if anywhere."""
    from pygments.formatters import HtmlFormatter

    environment = Environment(loader=FileSystemLoader([TEMPLATES, pages.TEMPLATES]),
                              autoescape=True, trim_blocks=True, lstrip_blocks=True)
    light, dark = (Markup(HtmlFormatter(style=style).get_style_defs(".highlight"))
                   for style in ("default", "github-dark"))
    return environment.get_template("review.html.j2").render(
        facts=facts, verdict=verdict, drawn=drawn, published=published, marks=MARKS,
        code=lambda name: f"<code>{html.escape(name)}</code>",
        bold=lambda text: f"<strong>{text}</strong>", short=plots.short,
        number=number, light=light, dark=dark) + "\n"
