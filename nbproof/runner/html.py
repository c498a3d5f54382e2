"""Pages: an executed notebook as one self-contained file, light and dark, without a script.

A page is no output of a stage: it is made from reports/NAME.ipynb where it is missing or its stamp
is not current. A stamp is the notebook's MD5 sum and a hash of what makes pages; reading one
imports nothing slow.
"""

import base64
import functools
import re
from collections.abc import Collection
from hashlib import md5
from pathlib import Path

from nbproof.notebook.files import root, write_whole
from nbproof.runner import source

TEMPLATES = Path(__file__).with_name("templates")
STAMP = re.compile(rb'<meta name="nbproof" content="([^"]*)">')


def stamp(path: Path) -> str:
    """Return the stamp of a current page of the file at `path`."""
    content = path.read_bytes() if path.is_file() else b""
    return f"{md5(content, usedforsecurity=False).hexdigest()} {version()}"


@functools.cache
def version() -> str:
    """Return a short hash of what makes pages."""
    makers = [Path(__file__), Path(__file__).with_name("cells.py"), *sorted(TEMPLATES.rglob("*.*"))]
    contents = b"".join(path.read_bytes() for path in makers)
    return md5(contents, usedforsecurity=False).hexdigest()[:8]


def stamp_of(page: Path) -> str:
    """Return the stamp in the head of `page`; empty where there is none."""
    if not page.is_file():
        return ""
    with page.open("rb") as file:
        found = STAMP.search(file.read(400))
    return found[1].decode() if found else ""


def write(name: str, folder: Path | None = None, pages: Collection[str] | None = None) -> None:
    """Write reports/NAME.html from reports/NAME.ipynb.

    Pictures lie in `folder`, the one of the notebook's source, by default notebooks/; `pages` are
    the names of the notebooks that have a page, None where all have one."""
    import nbformat

    executed = root() / "reports" / f"{name}.ipynb"
    notebook = nbformat.read(executed, as_version=4)
    folder = folder or root() / "notebooks"
    page = render(notebook, folder, name, stamp(executed), pages)
    write_whole(executed.with_suffix(".html"), page)


def is_figure(picture: str) -> bool:
    """Return whether a PNG in base64 is matplotlib's, which notes that in the file's head."""
    return b"Matplotlib" in base64.b64decode(picture[:400])


def prepare() -> None:
    """Import and compile what the first page takes half a second for, and every other none."""
    import nbformat

    render(nbformat.v4.new_notebook(), root())


def render(executed, folder: Path, name: str = "", stamp: str = "",
           pages: Collection[str] | None = None) -> str:
    """Return the page of an executed notebook with the pictures that lie in `folder`.

    A failure noted in its metadata becomes a banner. With the `name` of a stage the page links to
    the index."""
    from markupsafe import Markup
    from pygments.formatters import HtmlFormatter

    from nbproof.runner import cells  # imports nbconvert

    body, failure = cells.body(executed, folder, pages), executed.metadata.get("failure")
    if (answer := source.conclusion(executed.cells)) and body.h1 and not failure:
        subtitle = body.h1.find_next_sibling("blockquote")
        (subtitle or body.h1).insert_after(cells.answer(answer))
    light, dark = (Markup(HtmlFormatter(style=style).get_style_defs(".highlight"))
                   for style in ("default", "github-dark"))
    return fill(
        "notebook.html.j2", name=name, stamp=stamp, light=light, dark=dark, failure=failure,
        failed_cell=source.counted(executed.cells)[failure["cell"] - 1] if failure else None,
        title=body.h1.get_text(" ", strip=True) if body.h1 else "Notebook",
        headings=body.find_all(["h2", "h3"]), has_code=body.select_one(".code:not(.shown)"),
        body=Markup(body))


def fill(template: str, **values: object) -> str:
    """Return a page from a template of this folder; values that are no Markup are escaped."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True,
                              trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(values) + "\n"
