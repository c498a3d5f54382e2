"""The page before and after: what changed in each notebook's source and outputs, and in its figures.

One file that opens by itself, without a script.
"""

import base64
import difflib
import html
import io
import re
from collections.abc import Iterator
from itertools import zip_longest

import nbformat
from markupsafe import Markup

from nbproof.notebook.files import root, write_whole
from nbproof.review.facts import Facts, Result
from nbproof.review.outputs import HEADING, LINES, text_of
from nbproof.review.markdown import count, plain
from nbproof.runner import html as html_page
from nbproof.runner.source import counted

PLACE = "reports/changes.html"
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+")
STYLE = """
.diff { background: var(--code); border: 1px solid var(--line); border-radius: 6px; padding: .5rem 0;
  overflow-x: auto; }
.diff span, .diff del, .diff ins { display: block; padding: 0 .9rem; text-decoration: none; min-height: 1.5em; }
.diff del { background: color-mix(in srgb, var(--bad) 14%, transparent); }
.diff ins { background: color-mix(in srgb, var(--good) 18%, transparent); }
.diff del::before { content: "− "; } .diff ins::before { content: "+ "; } .diff span::before { content: "  "; }
.pair { margin: 1rem 0; border: 0; padding: 0; min-width: 0; }
.pair label { margin-right: 1rem; font-size: .9rem; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; margin-top: .4rem; }
.sides figure { margin: 0; min-width: 0; }
.sides figcaption { color: var(--soft); font-size: .85rem; }
.pair:has(.only-base:checked) .branch, .pair:has(.only-branch:checked) .base { display: none; }
.pair:has(.only-base:checked, .only-branch:checked) .sides { grid-template-columns: 1fr; }
@media (max-width: 700px) { .sides { grid-template-columns: 1fr; } }
"""


def write(facts: Facts) -> bool:
    """Write reports/changes.html, or remove it where no notebook's outputs can be compared; whether it is there."""
    pairs = [each for each in facts.results if each.pair]
    place = root() / PLACE
    if not pairs:
        place.unlink(missing_ok=True)
        return False
    write_whole(place, page(facts, pairs))
    return True


def page(facts: Facts, pairs: list[Result]) -> str:
    """The page of the notebooks that ran on both sides."""
    sections = [_notebook(each) for each in pairs]
    links = "".join(f'<li><a href="#{html.escape(each.page)}">{html.escape(each.name)}</a></li>' for each in pairs)
    here = "this folder" if facts.uncommitted else f"<code>{facts.head[:10]}</code>"
    body = (f"<style>{STYLE}</style>\n<main>\n<h1>Before and after</h1>\n<blockquote><p>The notebooks of "
            f"<code>{facts.base[:10]}</code> and of {here}, cell by cell. Red is the base, green the branch; "
            f"cells and figures that did not change are left out.</p></blockquote>\n"
            f"<ul>{links}</ul>\n{''.join(sections)}</main>\n")
    return html_page.fill("page.html.j2", title="Before and after", body=Markup(body))


def _notebook(result: Result) -> str:
    old, new = result.pair
    cells, numbers = [], iter(range(1, 10**6))
    for number, heading, before, now in _cells(old, new):
        shown = "".join(filter(None, [_diff(_source(before), _source(now)), _diff(_text(before), _text(now)),
                                      *_figures(before, now, numbers, result.page)]))
        if shown:
            place = f"Cell {number}" if number else "A cell of the base that is gone"
            cells.append(f"<h3>{place}{html.escape(heading)}</h3>\n{shown}")
    name = html.escape(result.page)
    said = "" if cells else "<p>It ran again; nothing that a reader sees changed.</p>"
    return f'<section><h2 id="{name}">{html.escape(result.name)}</h2>\n{said}{"".join(cells)}</section>\n'


def _cells(old: nbformat.NotebookNode, new: nbformat.NotebookNode) -> Iterator[tuple]:
    """Number of the cell in the new source (None: gone), heading above, the cell in the old and in the new one.

    Cells are the same cell by their id, which Jupyter keeps; else by their place among cells of the same text.
    """
    before, now = [_identity(cell) for cell in old.cells], [_identity(cell) for cell in new.cells]
    pairs = []
    for kind, start, end, new_start, new_end in difflib.SequenceMatcher(None, before, now, False).get_opcodes():
        was, here = old.cells[start:end], new.cells[new_start:new_end]
        pairs += zip(was, here) if kind == "equal" else [(cell, None) for cell in was] + [(None, cell) for cell in here]
    heading, number = "", 0
    for was, here in pairs:
        if here is not None:
            number += len(counted([here]))
            heading = _heading(here) or heading
        yield number if here is not None else None, heading, was, here


def _identity(cell: nbformat.NotebookNode) -> str:
    return cell.get("id") or cell.source


def _heading(cell: nbformat.NotebookNode) -> str:
    if cell.cell_type != "markdown":
        return ""
    found = [match[1] for each in cell.source.splitlines() if (match := HEADING.fullmatch(each[:200]))]
    return f", {plain(found[-1])[:80]}" if found else ""


def _source(cell: nbformat.NotebookNode | None) -> list[str]:
    return plain(cell.source).split("\n") if cell else []


def _text(cell: nbformat.NotebookNode | None) -> list[str]:
    """The lines that a reader sees below a cell; figures are compared by themselves."""
    texts = [text_of(output) for output in (cell or {}).get("outputs", ()) if not _images(output)]
    lines = [line.rstrip() for text in texts for line in plain(text).strip("\n").split("\n")]
    return lines if len(lines) <= LINES else [*lines[:LINES], f"… {count(len(lines) - LINES, 'more line')}"]


def _diff(before: list[str], now: list[str]) -> str:
    """The changed lines with two lines around them; empty where none changed."""
    if before == now:
        return ""
    lines = []
    for group in difflib.SequenceMatcher(None, before, now, False).get_grouped_opcodes(2):
        for kind, start, end, new_start, new_end in group:
            parts = [("span", before[start:end])] if kind == "equal" else [
                ("del", before[start:end]), ("ins", now[new_start:new_end])]
            lines += [f"<{tag}>{html.escape(line)}</{tag}>" for tag, part in parts for line in part]
    return f'<pre class="diff">{"".join(lines)}</pre>\n'


def _images(output: dict) -> list[tuple[str, str]]:
    """The pictures of an output as kind and content."""
    return [(kind, "".join(value)) for kind, value in output.get("data", {}).items() if kind.startswith("image/")]


def _figures(before, now, numbers: Iterator[int], page_name: str) -> Iterator[str]:
    old, new = ([image for output in (cell or {}).get("outputs", ()) for image in _images(output)[:1]]
                for cell in (before, now))
    for was, here in zip_longest(old, new):
        if _same(was, here):
            continue
        name = f"{page_name}-{next(numbers)}"
        choices = "".join(
            f'<label><input type="radio" name="{html.escape(name)}" class="{kind}"{checked}> {said}</label>'
            for kind, said, checked in (("both", "side by side", " checked"), ("only-base", "base", ""),
                                        ("only-branch", "branch", "")))
        yield (f'<fieldset class="pair">{choices if was and here else ""}<div class="sides">'
               f'{_side("base", was)}{_side("branch", here)}</div></fieldset>\n')


def _side(side: str, image: tuple[str, str] | None) -> str:
    shown = f'<img src="{_address(*image)}" alt="The figure of the {side}">' if image else "<p>no figure here</p>"
    return f'<figure class="{side}"><figcaption>{side}</figcaption>{shown}</figure>'


def _address(kind: str, content: str) -> str:
    """A data address; an SVG is text in a notebook, all else is base64."""
    if kind == "image/svg+xml":
        return f"data:{kind};base64,{base64.b64encode(content.encode()).decode()}"
    safe = kind if re.fullmatch(r"image/[a-z0-9.+-]+", kind) else "image/png"
    return f"data:{safe};base64,{''.join(content.split())}" if BASE64.fullmatch(content) else ""


def _same(one: tuple[str, str] | None, other: tuple[str, str] | None) -> bool:
    """Whether two figures have the same pixels; other metadata in the file is no difference."""
    if one is None or other is None or one == other:
        return one == other
    pixels = [_pixels(*each) for each in (one, other)]
    return None not in pixels and pixels[0] == pixels[1]


def _pixels(kind: str, content: str) -> tuple | None:
    if kind == "image/svg+xml":
        return None
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            return image.size, image.convert("RGBA").tobytes()
    except (ValueError, OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
