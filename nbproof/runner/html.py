"""Pages: an executed notebook as one self-contained file, light and dark, without a script.

A page is no output of a stage: it is made from reports/NAME.ipynb where it is missing or its stamp
is not current. A stamp is the notebook's MD5 sum and a hash of what makes pages; reading one
imports nothing slow.
"""

import functools
import hashlib
import re
from pathlib import Path

from nbproof.notebook.files import root, write_whole
from nbproof.runner import source

TEMPLATES = Path(__file__).with_name("templates")
STAMP = re.compile(rb'<meta name="nbproof" content="([^"]*)">')


@functools.cache
def version() -> str:
    """Return a short hash of what makes a page: this file, cells.py and the templates."""
    code = [Path(__file__), Path(__file__).with_name("cells.py")]
    content = b"".join(path.read_bytes() for path in sorted([*code, *TEMPLATES.rglob("*.*")]))
    return hashlib.md5(content, usedforsecurity=False).hexdigest()[:8]


def stamp(path: Path) -> str:
    """Return the stamp of a current page of the file at `path`."""
    content = path.read_bytes() if path.is_file() else b""
    return stamp_for(hashlib.md5(content, usedforsecurity=False).hexdigest())


def stamp_for(md5: str) -> str:
    """Return the stamp of a current page of a file with this MD5 sum."""
    return f"{md5} {version()}"


def stamp_of(page: Path) -> str:
    """Return the stamp in the head of `page`; empty where there is none."""
    if not page.is_file():
        return ""
    with page.open("rb") as file:
        found = STAMP.search(file.read(400))
    return found[1].decode() if found else ""


def write(name: str, folder: Path | None = None) -> Path:
    """Write reports/NAME.html from reports/NAME.ipynb.

    Pictures lie in `folder`, the one of the notebook's source; by default notebooks/."""
    import nbformat

    executed = root() / "reports" / f"{name}.ipynb"
    notebook = nbformat.read(executed, as_version=4)
    page = render(notebook, folder or root() / "notebooks", name, stamp(executed))
    return write_whole(executed.with_suffix(".html"), page)


def render(executed, folder: Path, name: str = "", stamp: str = "") -> str:
    """Return the page of an executed notebook with the pictures that lie in `folder`.

    A failure noted in its metadata becomes a banner. With the `name` of a stage the page links to
    the index."""
    from markupsafe import Markup
    from pygments.formatters import HtmlFormatter

    from nbproof.runner import cells  # imports nbconvert

    body, failure = cells.body(executed, folder), executed.metadata.get("failure")
    title = body.find("h1")
    _give_ids(body.find_all(["h1", "h2", "h3", "h4"]))
    light, dark = (Markup(HtmlFormatter(style=style).get_style_defs(".highlight"))
                   for style in ("default", "github-dark"))
    return fill(
        "notebook.html.j2", name=name, stamp=stamp, light=light, dark=dark, failure=failure,
        failed_cell=source.counted(executed.cells)[failure["cell"] - 1] if failure else None,
        title=title.get_text(" ", strip=True) if title else "Notebook",
        headings=body.find_all(["h2", "h3"]), folded=body.select_one("details.code"),
        body=Markup(body))


def fill(template: str, **values: object) -> str:
    """Return a page from a template of this folder; values that are no Markup are escaped."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True,
                              trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(values) + "\n"


def _give_ids(headings) -> None:
    """Give each heading the id that it has in Jupyter; of two with one text the second has more."""
    ids = []
    for heading in headings:
        ids.append("-".join(heading.get_text(" ").split()))
        again = ids.count(ids[-1]) - 1
        heading["id"] = f"{ids[-1]}-{again}" if again else ids[-1]
