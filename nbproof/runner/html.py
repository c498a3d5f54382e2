"""An executed notebook as one self-contained page: no script, no request, mathematics as MathML, light and dark."""

import ast
import copy
import html
import re
from pathlib import Path

import nbformat
import nh3
from bs4 import BeautifulSoup, Tag
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from nbproof.runner import layout, schema, source

LONG = 10  # lines of code that a page shows without being asked
# What a page may hold beside the sanitiser's own list of HTML.
SVG = """
    svg g defs symbol use title desc path rect circle ellipse line polyline polygon text tspan textPath marker
    linearGradient radialGradient stop clipPath mask pattern filter feGaussianBlur feOffset feBlend feFlood
    feComposite feMerge feMergeNode feColorMatrix"""
MATHML = """
    math mrow mi mn mo ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mmultiscripts
    mprescripts none mtable mtr mtd mpadded mphantom menclose mstyle merror semantics annotation"""
TAGS = nh3.ALLOWED_TAGS | {"font", "meter", "progress", *SVG.split(), *MATHML.split()} - {"title", "none"}
LINKS = ["a", "use", "textPath", "linearGradient", "radialGradient", "pattern"]
DROPPED_WHOLE = {"script", "style", "title", "textarea", "noscript", "noembed", "noframes", "iframe", "template", "xmp"}
ATTRIBUTES = """
    class id title style lang dir role width height align valign colspan rowspan scope start value max min high low
    open bgcolor border cellpadding cellspacing color datetime d x y x1 y1 x2 y2 dx dy cx cy r rx ry fx fy points
    pathLength viewBox preserveAspectRatio transform rotate textLength lengthAdjust version fill fill-opacity
    fill-rule stroke stroke-width stroke-opacity stroke-dasharray stroke-dashoffset stroke-linecap stroke-linejoin
    stroke-miterlimit opacity offset stop-color stop-opacity gradientUnits gradientTransform spreadMethod clip-path
    clip-rule clipPathUnits mask maskUnits maskContentUnits patternUnits patternContentUnits patternTransform filter
    filterUnits in in2 result stdDeviation operator mode flood-color flood-opacity marker-start marker-mid marker-end
    markerWidth markerHeight markerUnits refX refY orient visibility display font-family font-size font-style
    font-weight text-anchor text-decoration dominant-baseline alignment-baseline baseline-shift letter-spacing
    startOffset shape-rendering vector-effect displaystyle scriptlevel mathvariant mathsize mathcolor mathbackground
    stretchy fence separator lspace rspace form minsize maxsize largeop movablelimits symmetric accent accentunder
    linethickness notation columnalign rowalign columnspacing rowspacing columnlines rowlines frame depth voffset"""
ATTACHMENT = re.compile(r"""(?<=[(<"'=])attachment:([^\s)>"']+)""")
ADDRESS = re.compile(r"url\s*\((?!\s*[\"']?#)", re.I)  # in CSS, and in SVG's attributes that take what CSS takes
OTHER_ADDRESS = re.compile(r"\\|image(-set)?\s*\(|src\s*\(", re.I)  # in CSS; a backslash can hide any of them
ACTIVE = re.compile(r"<\s*(script|iframe|object|embed|video|audio|canvas|frameset|portal)\b", re.I)
NOT_HERE = ("<p><em>This output needs a script or a request, and a page has neither: "
            "open the notebook in JupyterLab to see it.</em></p>")


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
        return clean(MarkdownWithMath(renderer=renderer).render(source))


def render(notebook: nbformat.NotebookNode, folder: Path, name: str = "") -> str:
    """The page of an executed `notebook`; pictures below `folder` are put into it, remote ones become links.

    A failure noted in the notebook's metadata becomes a banner on top. The page of the stage `name` has links to the
    index and to its neighbours.
    """
    exporter, shown = CellsExporter(template_name="basic"), copy.deepcopy(notebook)
    exporter.folder = str(folder)
    banner = _banner(shown)
    _merge_parameters(shown)
    for output in (each for cell in shown.cells for each in cell.get("outputs", [])):
        _make_static(output.get("data", {}))
    cells, _ = exporter.from_notebook_node(shown)
    body = BeautifulSoup(clean(cells), "html.parser")
    for output in body.select(".output_latex"):
        output.replace_with(BeautifulSoup(exporter.rendered(output.get_text()), "html.parser"))
    for mark in body.find_all("a", class_="anchor-link"):
        mark.decompose()
    contents = _contents(body)
    _describe_images(body)
    switch = _fold_code(body)
    first = body.find("h1")
    return layout.whole(first.get_text(" ", strip=True) if first else "Notebook",
                        f"{_neighbours(name, switch)}{contents}<main>\n{banner}{body}</main>\n")


def clean(text: str) -> str:
    """HTML of which only what neither runs nor fetches anything is left; what it left open is closed."""
    return nh3.clean(
        text.encode(errors="replace").decode(), tags=TAGS, clean_content_tags=DROPPED_WHOLE, link_rel=None,
        attributes={"*": set(ATTRIBUTES.split()), "img": {"src", "alt"}} | dict.fromkeys(LINKS, {"href"}),
        generic_attribute_prefixes={"data-", "aria-"}, url_schemes={"http", "https", "mailto", "data"},
        attribute_filter=_kept,
    )


def _kept(tag: str, name: str, value: str) -> str | None:
    """An attribute's value if it runs and fetches nothing; a remote image becomes a link later."""
    if name == "href":
        right = not value.strip().lower().startswith("data:") if tag == "a" else value.startswith("#")
        return value if right else None
    if name == "src":
        return value
    return None if ADDRESS.search(value) or (name == "style" and OTHER_ADDRESS.search(value)) else value


def _make_static(data: dict) -> None:
    """Clean an output by itself, so that what it leaves open ends with it; say so where nothing could be shown."""
    gone = [kind for kind in data if kind.endswith("+json") or kind == "application/javascript"]
    if "text/html" in data:  # an SVG becomes an <img>, in which nothing runs or fetches
        given = data["text/html"]
        data["text/html"] = clean(given)
        if ACTIVE.search(given) and not re.sub(r"<(?!img|svg|progress|meter)[^>]*>|\s", "", data["text/html"]):
            gone.append("text/html")
    for kind in gone:
        del data[kind]
    if gone and set(data) <= {"text/plain"}:
        data["text/html"] = NOT_HERE


def _merge_parameters(notebook: nbformat.NotebookNode) -> None:
    """Show the parameters once, as a table of values and meanings, instead of two cells."""
    for place, cell in enumerate(notebook.cells):
        if "injected-parameters" not in cell.metadata.get("tags", []) or "error" in str(cell.outputs):
            continue
        declared = schema.declared_in(notebook.cells[:place], "the notebook")
        values = {line.targets[0].id: ast.unparse(line.value) for line in ast.parse(cell.source).body}
        rows = "".join(
            f"<tr><td><code>{name}</code></td><td><code>{html.escape(value)}</code></td><td>{html.escape(each.meaning)}"
            f"</td><td><code>{html.escape(f'{each.type} {each.allowed}'.strip())}</code></td></tr>"
            for name, value in values.items() if (each := declared.get(name))
        )
        table = ("<table class=parameters><tr><th>parameter</th><th>value</th><th>meaning</th><th>may be</th></tr>"
                 f"{rows}</table>")
        tagged = [each for each in notebook.cells[:place] if schema.is_tagged(each)]
        notebook.cells[place] = nbformat.v4.new_markdown_cell(table, id=cell.id)
        notebook.cells = [each for each in notebook.cells if each not in tagged]
        return


def _describe_images(body: BeautifulSoup) -> None:
    """Remote images become links. A figure without words gets those of the reading below it, or of its heading."""
    for image in body.find_all("img"):
        address = image.get("src") or ""
        if not address.startswith("data:image/"):
            link = body.new_tag("a", href=address)
            link.string = f"{image.get('alt') or 'image'} ({address[:80]}, not part of this page)"
            image.replace_with(link)
        elif not image.get("alt") or image["alt"] in ("No description has been provided for this image", "figure"):
            image["alt"] = _words_for(image)


def _words_for(image: Tag) -> str:
    """The sentence that a later cell shows before the next heading or image, else the heading above."""
    for later in image.find_all_next(["h1", "h2", "h3", "img", "div"]):
        if later.name != "div":
            break
        if "output_markdown" in later.get("class", []) and not later.find("table"):
            return later.get_text(" ", strip=True)[:400]
    above = image.find_previous(["h1", "h2", "h3"])
    return f"Figure: {above.get_text(' ', strip=True)}" if above else "Figure"


def _fold_code(body: BeautifulSoup) -> bool:
    """Fold each long cell of code; whether there is one."""
    written = [(cell, cell.select_one(".input_area").get_text().strip()) for cell in body.select("div.input")]
    found = [(cell, code.count("\n") + 1) for cell, code in written if code.count("\n") >= LONG]
    for cell, lines in found:
        folded = cell.wrap(body.new_tag("details", attrs={"class": "code"}))
        summary = body.new_tag("summary")
        summary.string = f"{lines} lines of code"
        folded.insert(0, summary)
    return bool(found)


def _neighbours(name: str, switch: bool) -> str:
    """The line on top. Which page is next, a page does not know: `nbproof run` writes where next/NAME.html leads."""
    links = (f'<a href="previous/{name}.html" rel="prev">← previous</a> <a href="index.html">all pages</a> '
             f'<a href="next/{name}.html" rel="next">next →</a>') if name else ""
    box = '<label><input type="checkbox" id="all-code"> show all code</label>' if switch else ""
    return f'<nav class="pages" aria-label="Pages">{links} {box}</nav>\n' if links or box else ""


def _contents(body: BeautifulSoup) -> str:
    """A list of links to the headings of second and third level, each given an id of its own."""
    items = []
    for number, heading in enumerate(body.find_all(["h2", "h3"]), start=1):
        slug = re.sub(r"[^a-z0-9]+", "-", heading.get_text(" ").lower()).strip("-")
        heading["id"] = f"{number}-{slug}"
        words = html.escape(heading.get_text(" ", strip=True))
        items.append(f'<li class="{heading.name}"><a href="#{heading["id"]}">{words}</a></li>\n')
    return (f'<nav class="contents" aria-label="Contents"><details><summary>Contents</summary><ul>\n{"".join(items)}'
            "</ul></details></nav>\n") if items else ""


def _banner(notebook: nbformat.NotebookNode) -> str:
    failure = notebook.metadata.get("failure")
    if not failure:
        return ""
    what = html.escape(f"{failure['error']}: {failure['reason']}")
    cell = source.counted(notebook.cells)[failure["cell"] - 1]
    return (f'<div class="failed" role="alert"><strong>Failed at <a href="#cell-id={html.escape(cell.id)}">cell '
            f'{failure["cell"]}</a>.</strong> {what}<br>The cells after it were not run.</div>\n')
