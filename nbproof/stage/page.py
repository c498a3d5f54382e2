"""An executed notebook as one self-contained page: no script, no request, mathematics as MathML, light and dark."""

import html
import re
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup, Tag
from bs4.element import PreformattedString
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

CSS = Path(__file__).with_name("page.css")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
# What runs, fetches or leads away by itself, what changes attributes later, and what a browser reads otherwise than our
# parser does.
REFUSED_TAGS = [
    "script", "style", "link", "meta", "base", "title", "form", "iframe", "frame", "frameset", "object", "embed",
    "applet", "portal", "track", "animate", "set", "noscript", "noembed", "noframes", "template", "textarea", "xmp",
    "plaintext",
]
REFUSED_ATTRIBUTES = {
    "srcset", "srcdoc", "background", "poster", "ping", "action", "formaction", "data", "lowsrc", "dynsrc",
    "codebase", "archive",
}
ATTACHMENT = re.compile(r"""(?<=[(<"'=])attachment:([^\s)>"']+)""")
ADDRESS = re.compile(r"url\s*\((?!\s*[\"']?#)", re.I)  # in CSS, and in SVG's attributes that take what CSS takes
OTHER_ADDRESS = re.compile(r"\\|image(-set)?\s*\(|src\s*\(", re.I)  # in CSS; a backslash can hide any of them


class MathRenderer(IPythonRenderer):
    """Markdown with its mathematics set when the page is made, so that the reader's browser needs no library."""

    def inline_math(self, body):
        return _mathml(body, "inline")

    def block_math(self, body):
        return _mathml(body, "block")

    def latex_environment(self, name, body):
        return _mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


def _mathml(latex: str, display: str) -> str:
    """MathML for LaTeX; what the converter does not know stays readable as it was written."""
    try:
        return convert(html.unescape(latex), display=display)
    except Exception:  # latex2mathml raises many kinds, bare IndexError too; the source is then what we can show
        return f"<code>{html.escape(html.unescape(latex))}</code>"


class CellsExporter(HTMLExporter):
    """The notebook's cells as HTML, with Markdown set by MathRenderer; pictures come from `folder` or the cell."""

    folder = ""

    @pass_context
    def markdown2html(self, context, source):
        return self.rendered(source, context.get("cell", {}).get("attachments", {}))

    def rendered(self, source: str, attachments: dict | None = None) -> str:
        known = attachments or {}  # nbconvert raises where a picture that was pasted is no longer in the cell
        source = ATTACHMENT.sub(lambda found: found[0] if found[1] in known else f"missing:{found[1]}", source)
        renderer = MathRenderer(escape=False, attachments=known, embed_images=True, path=self.folder)
        return MarkdownWithMath(renderer=renderer).render(source)


def render(notebook: nbformat.NotebookNode, folder: Path) -> str:
    """The page of an executed `notebook`; pictures below `folder` are put into it, remote ones become links.

    A failure noted in the notebook's metadata becomes a banner on top.
    """
    exporter = CellsExporter(template_name="basic")
    exporter.folder = str(folder)
    cells, _ = exporter.from_notebook_node(notebook)
    body = BeautifulSoup(cells, "html.parser")
    _set_mathematics(body, exporter)
    _without_requests(body)
    contents = _contents(body)
    first = body.find("h1")
    title = html.escape(first.get_text(" ", strip=True) if first else "Notebook")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{title}</title>\n<style>\n{_style()}</style>\n</head>\n"
        f"<body>\n{contents}<main>\n{_banner(notebook)}{body}</main>\n</body>\n</html>\n"
    )


def _set_mathematics(body: BeautifulSoup, exporter: CellsExporter) -> None:
    """Set what cells showed as LaTeX; take off the random name that nbconvert gives an output of JavaScript."""
    for shown in body.select(".output_latex"):
        latex = shown.get_text()
        shown.clear()
        shown.append(BeautifulSoup(exporter.rendered(latex), "html.parser"))
    for output in body.select(".output_javascript"):
        del output["id"]


def _without_requests(body: BeautifulSoup) -> None:
    """Take out what would run or fetch: scripts, frames, remote images (they become links); drop nbconvert's marks."""
    for hidden in body.find_all(string=lambda text: isinstance(text, PreformattedString)):  # comments and their like
        hidden.extract()
    for tag in body.find_all(REFUSED_TAGS):
        tag.decompose()
    for image in body.find_all(["img", "video", "audio", "source", "image"]):
        address = image.get("src") or image.get("xlink:href") or image.get("href") or ""
        if not address.startswith("data:image/"):
            link = body.new_tag("a", href=address)
            link.string = f"{image.get('alt') or 'image'} ({address[:80]}, not part of this page)"
            image.replace_with(link)
        elif not image.get("alt"):
            image["alt"] = "figure"
    for tag in body.find_all(True):
        for name, value in list(tag.attrs.items()):
            if not _is_harmless(tag, name, value if isinstance(value, str) else " ".join(value)):
                del tag[name]
    for mark in body.find_all("a", class_="anchor-link"):
        mark.decompose()


def _is_harmless(tag: Tag, name: str, value: str) -> bool:
    """Whether an attribute neither runs nor fetches anything."""
    if name in ("href", "xlink:href", "src"):
        address = re.sub(r"[\x00-\x20]", "", value).lower()  # browsers do not see these either
        scheme = re.match(r"([^/?#]*):", address)
        link = tag.name == "a" and name == "href" and (not scheme or scheme[1] in ("http", "https", "mailto"))
        return link or address.startswith("#") or (tag.name == "img" and address.startswith("data:image/"))
    if name.startswith("on") or name in REFUSED_ATTRIBUTES:
        return False
    return not (ADDRESS.search(value) or (name == "style" and OTHER_ADDRESS.search(value)))


def _contents(body: BeautifulSoup) -> str:
    """A list of links to the headings of second and third level, each given an id of its own."""
    items = []
    for number, heading in enumerate(body.find_all(["h2", "h3"]), start=1):
        slug = re.sub(r"[^a-z0-9]+", "-", heading.get_text(" ").lower()).strip("-")
        heading["id"] = f"{number}-{slug}"
        words = html.escape(heading.get_text(" ", strip=True))
        items.append(f'<li class="{heading.name}"><a href="#{heading["id"]}">{words}</a></li>\n')
    return f'<nav aria-label="Contents"><ul>\n{"".join(items)}</ul></nav>\n' if items else ""


def _banner(notebook: nbformat.NotebookNode) -> str:
    failure = notebook.metadata.get("failure")
    if not failure:
        return ""
    what = html.escape(f"{failure['error']}: {failure['reason']}")
    return (f'<div class="failed" role="alert"><strong>Failed at cell {failure["cell"]}.</strong> {what}<br>'
            "The cells after it were not run.</div>\n")


def _style() -> str:
    """The page's own rules and the colours of code, for light and for dark."""
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    own = CSS.read_text(encoding="utf-8")
    return (f"{own}\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
            ".highlight, .highlight pre { background: none; }\n")
