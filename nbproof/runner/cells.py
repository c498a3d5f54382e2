"""The cells of an executed notebook as HTML that runs nothing and requests nothing."""

import base64
import functools
import html
import mimetypes
import os
import re
import string
from collections.abc import Collection
from hashlib import md5
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

import mistune
import nh3
from bs4 import BeautifulSoup, Tag
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from nbproof.runner import schema
from nbproof.runner.html import is_figure

TEMPLATES = Path(__file__).with_name("templates")
DRAWN = """
    svg g defs symbol use desc path rect circle ellipse line polyline polygon text tspan textPath
    marker linearGradient radialGradient stop clipPath mask pattern font meter progress
    math mrow mi mn mo ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover
    mmultiscripts mprescripts mtable mtr mtd mpadded mphantom menclose mstyle semantics
    """
DROPPED_WHOLE = {"script", "style", "title", "noscript", "noembed", "noframes", "iframe", "xmp"}
# Attributes that run or request something, by their names and by what CSS may stand in them; a
# backslash can hide an address.
REFUSED = re.compile(r"on|.*src|.*href|.*action|background|data$|longdesc|ping|poster|usemap")
ADDRESS = re.compile(r"""url\s*\((?!\s*["']?\#) | image(-set)?\s*\( | src\s*\( | \\""", re.I | re.X)

RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")


class MathRenderer(IPythonRenderer):
    """Markdown whose mathematics is MathML, so that the reader's browser needs no library."""

    def inline_math(self, body):
        return _mathml(body, "inline")

    def block_math(self, body):
        return _mathml(body, "block")

    def latex_environment(self, name, body):
        return _mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")

    def image(self, text, url, title=None):
        # nbconvert's raises where a pasted picture is gone; _finish_image looks at every image
        return mistune.HTMLRenderer.image(self, text, url, title)


def _mathml(latex: str, display: str) -> str:
    """Return MathML for LaTeX; what the converter does not know stays as it was written."""
    try:
        return convert(html.unescape(latex), display=display)
    except Exception:  # latex2mathml raises many kinds, a bare IndexError too
        return f"<code>{html.escape(html.unescape(latex))}</code>"


class CellsExporter(HTMLExporter):
    """nbconvert's exporter with a template of ours and clean Markdown."""

    def __init__(self):
        super().__init__(template_name="cells", extra_template_basedirs=[str(TEMPLATES)],
                         exclude_input_prompt=True, exclude_output_prompt=True)
        # bleach, nbconvert's, takes ten times as long
        self.register_filter("clean_html", lambda text: with_own_ids(clean(with_styles(text))))

    @pass_context
    def markdown2html(self, context, source):
        # Pasted pictures; nbconvert finds none in HTML, and none with a space in its name.
        for name, content in context.get("cell", {}).get("attachments", {}).items():
            kind, data = next(iter(content.items()))
            for written in (name, quote(name)):
                source = source.replace(f"attachment:{written}", f"data:{kind};base64,{data}")
        renderer = MathRenderer(escape=False, exclude_anchor_links=True)
        return with_own_ids(clean(MarkdownWithMath(renderer=renderer).render(source)))


exporter = functools.cache(CellsExporter)  # its templates take 0.1 s to compile


def body(notebook: NotebookNode, folder: Path,
         pages: Collection[str] | None = None) -> BeautifulSoup:
    """Return the cells of an executed notebook as HTML with the pictures that lie in `folder`.

    `pages` are the names of the notebooks that have a page; None where all have one."""
    text, _ = exporter().from_notebook_node(notebook, {"parameters": _parameters(notebook)})
    soup = BeautifulSoup(clean(text), "html.parser")
    for image in soup.find_all("img"):
        _finish_image(image, folder)
    for link in soup.find_all("a", href=True):
        _finish_link(link, pages)
    for table in soup.select("table:not(.parameters)"):
        _name_columns(table)
    ids = []
    for heading in soup.find_all(["h1", "h2", "h3", "h4"]):  # the ids that they have in Jupyter
        name = "-".join(heading.get_text(" ").split())
        heading["id"] = f"{name}-{ids.count(name)}" if name in ids else name
        ids.append(name)
    return soup


def answer(markdown: str) -> BeautifulSoup:
    """Return a notebook's conclusion as the box that stands on top of its page."""
    text = exporter().markdown2html({}, markdown)
    return BeautifulSoup(f'<div class="answer">{text}</div>', "html.parser")


def clean(text: str) -> str:
    """Return HTML without what runs or requests anything; what the text left open is closed."""
    return nh3.clean(
        text.encode(errors="replace").decode(),  # half a character costs only itself
        tags=nh3.ALLOWED_TAGS | {*DRAWN.split()}, clean_content_tags=DROPPED_WHOLE,
        generic_attribute_prefixes={*string.ascii_letters}, attribute_filter=_harmless,
        url_schemes={"http", "https", "mailto", "data", "attachment"}, link_rel=None)


def with_styles(text: str) -> str:
    """Return HTML with the rules that begin with an id on its elements: a page has no other style.

    A pandas Styler writes them: `#T_1_row0_col1, #T_1_row2_col1 {color: red}`, `#T_1 th {...}`."""
    if "<style" not in text:
        return text
    soup = BeautifulSoup(text, "html.parser")
    elements = {f"#{element['id']}": element for element in soup.find_all(id=True)}
    style = "".join(element.get_text() for element in soup.find_all("style"))
    for selectors, declarations in RULE.findall(style):
        for selector in selectors.split(","):
            name, _, below = selector.strip().partition(" ")
            if element := elements.get(name):  # select() would take seconds for a large table
                for selected in element.find_all(below) if below else [element]:
                    before = selected.get("style", "")
                    selected["style"] = " ".join([before, *declarations.split()]).strip()
    return str(soup)


def with_own_ids(text: str) -> str:
    """Return clean HTML whose drawings share no id with those of another output."""
    ids = re.findall(r' id="([^"]+)"', text) if "<svg" in text else []
    if not ids:
        return text
    name = md5(text.encode(), usedforsecurity=False).hexdigest()[:8]
    uses = rf"""( id="|href="#|url\((?:'|&quot;)?#)({'|'.join(map(re.escape, ids))})(?=["'&)])"""
    return re.sub(uses, rf"\1svg-{name}-\2", text)


def _harmless(tag: str, name: str, value: str) -> str | None:
    """Return an attribute's value, or None where it runs or requests something."""
    if name == "href":  # of a drawing: only to a part of itself
        data = urlsplit(value).scheme in ("data", "attachment")
        stays = not data if tag == "a" else value.startswith("#")
    elif name in ("src", "alt"):
        stays = tag == "img"  # _finish_image makes a link of a remote one
    else:
        stays = not (REFUSED.match(name) or ADDRESS.search(value))
    return value if stays else None


def _parameters(notebook: NotebookNode) -> list[tuple[str, str, schema.Parameter]]:
    """Return name, value as Python and declaration of each parameter that the run injected."""
    for number, cell in enumerate(notebook.cells):
        if "injected-parameters" in cell.metadata.get("tags", []):
            declared = schema.declared_in(notebook.cells[:number], "the notebook")
            values = dict(line.partition(" = ")[::2] for line in cell.source.splitlines())
            return [(name, values[name], declared[name]) for name in values if name in declared]
    return []


def _finish_image(image: Tag, folder: Path) -> None:
    """Put a picture of `folder` into the page; of others that are no data, words remain.

    A figure without words has those of its heading."""
    if image.get("alt") in ("", "figure", "No description has been provided for this image"):
        above = image.find_previous(["h1", "h2", "h3"])
        image["alt"] = f"Figure: {above.get_text(' ', strip=True)}" if above else "Figure"
    address = image.get("src", "")
    path = folder / unquote(address)
    kind = mimetypes.guess_type(path.name)[0] or ""
    # Path.is_file would raise on a long name.
    if (kind.startswith("image/") and os.path.isfile(path)  # noqa: PTH113
            and path.resolve().is_relative_to(folder.resolve())):
        image["src"] = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    elif address.startswith("data:image/png"):
        if is_figure(address.partition(",")[2]):
            image["class"] = "figure"
    elif not address.startswith("data:image/"):
        words = Tag(name="em")
        words.string = f"{image['alt']} ({address[:80]}, not part of this page)"
        image.replace_with(words)


def _finish_link(link: Tag, pages: Collection[str] | None) -> None:
    """Let a link to a notebook lead to its page; of a link to another file only the words stay.

    A page is read by itself: no such file is beside it.
    """
    address = urlsplit(link["href"])
    path = PurePosixPath(unquote(address.path))
    if address.scheme or address.netloc or not address.path or path.suffix == ".html":
        return
    names = [name for name in ([path.stem] if pages is None else pages)
             if name.partition("@")[0] == path.stem]  # export@cnn, say
    if path.suffix == ".ipynb" and names:
        link["href"] = address._replace(path=quote(f"{names[0]}.html")).geturl()
    else:
        link.replace_with(*link.contents)


def _name_columns(table: Tag) -> None:
    """Give the cells of a wide table the names of their columns, for a phone to show them."""
    rows = [row.find_all(["th", "td"]) for row in table.find_all("tr")]
    names = [cell.get_text(" ", strip=True) for cell in rows[0]] if rows else []
    is_plain = all(len(row) == len(names) for row in rows)
    if 3 < len(names) <= 30 and is_plain and all(cell.name == "th" for cell in rows[0]):
        table["class"] = [*table.get("class", []), "wide"]
        for row in rows[1:]:
            for cell, name in zip(row, names):
                cell["data-column"] = name
