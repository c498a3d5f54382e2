"""The page of an executed notebook: whole in one file, asks for nothing, runs nothing."""

import base64
import io
import re
from pathlib import Path

import nbformat
import pytest
from browser import chromium
from bs4 import BeautifulSoup, Comment
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from nbproof.runner import html as html_page


def picture() -> str:
    """A small figure as base64 PNG."""
    from matplotlib.figure import Figure

    buffer, figure = io.BytesIO(), Figure(figsize=(0.4, 0.2), dpi=100)
    figure.add_axes((0, 0, 1, 1)).plot([1, 3, 2])
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()


def notebook(*cells, **metadata):
    made = new_notebook(cells=list(cells))
    made.metadata.update(metadata)
    return made


def render(made, folder=Path("/nowhere")) -> str:
    return html_page.render(made, folder)


def parsed(made, folder=Path("/nowhere")) -> BeautifulSoup:
    return BeautifulSoup(render(made, folder), "html.parser")


def shown(**data):
    output = new_output("display_data", data={key.replace("_", "/"): value for key, value in data.items()})
    return new_code_cell("show()", execution_count=1, outputs=[output])


GOOD = notebook(
    new_markdown_cell("# Title & more\n\n> subtitle\n\nInline $x^2 + \\bar{y}$ and\n\n"
                      "$$\\frac{a}{b} < \\lVert x \\rVert_2$$"),
    new_markdown_cell("## Apples & pears\n\n### Twice\n\ntext"),
    shown(image_png=picture()),
    new_markdown_cell("## Twice\n\n| a | b |\n|:--|--:|\n| 1 | 2 |"),
    new_code_cell("print(1)", execution_count=2, outputs=[new_output("stream", text="<1>\n")]),
)


def test_whole_in_one_file():
    text = render(GOOD)
    body = BeautifulSoup(text, "html.parser")
    assert text == render(GOOD) and len(text) < 100_000
    assert body.title.string == "Title & more" and len(body.find_all("math")) == 2
    assert not body.find_all(["script", "link", "iframe"])
    assert [image["src"][:11] for image in body.find_all("img")] == ["data:image/"]
    assert "default-src 'none'" in body.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert "prefers-color-scheme: dark" in text and "&lt;1&gt;" in text


def test_contents_lead_to_headings():
    body = parsed(GOOD)
    links = body.find("nav", {"aria-label": "Contents"}).find_all("a")
    targets = [link["href"][1:] for link in links]
    assert [link.get_text() for link in links] == ["Apples & pears", "Twice", "Twice"]
    assert len(set(targets)) == 3 and all(re.fullmatch(r"[a-z0-9-]+", each) for each in targets)
    assert all(len(body.find_all(id=each)) == 1 for each in targets)


def test_unknown_mathematics_stays_readable():
    assert "\\nonsense{" in parsed(notebook(new_markdown_cell("$\\nonsense{$ and $\\frac{1}$"))).get_text()


HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><script>alert(1)</script></svg>", "<iframe src=https://example.org></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>", "<frameset><frame src=https://example.org></frameset>",
    "<a href='javascript:alert(1)'>x</a>", "<a href=' JaVaScRiPt:alert(1)'>x</a>",
    "<a href='java\tscript:alert(1)'>x</a>", "<a href='java&#10;script:alert(1)'>x</a>",
    "<a href='&#1;javascript:alert(1)'>x</a>", "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<map><area href='javascript:alert(1)'></map>",
    "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
    "<svg><a><animate attributeName=href values='javascript:alert(1)' /></a></svg>",
    "<svg><a><set attributeName=href to='javascript:alert(1)' /></a></svg>",
    "<math href='javascript:alert(1)'><mi>x</mi></math>", "<img src='https://example.org/x.png' alt=far>",
    "<img src='javascript:alert(1)'>", "<img src='//example.org/x.png'>",
    "<img srcset='https://example.org/x.png 2x' src='data:image/png;base64,AA=='>",
    "<input type=image src=https://example.org/x.png>", "<svg><image href='https://example.org/x.png' /></svg>",
    "<svg><use href='https://example.org/x.svg#a' /></svg>",
    "<svg><filter><feImage href='https://example.org/x.png' /></filter></svg>",
    "<svg><rect fill='url(https://example.org/x.svg#a)' /></svg>",
    "<style>@import url(https://example.org/x.css)</style>", "<link rel=stylesheet href=https://example.org>",
    "<div style='background:url(https://example.org/x.png)'>x</div>",
    "<div style='background:u\\72l(https://example.org/x.png)'>x</div>",
    '<div style=\'background:image-set("https://example.org/x.png" 1x)\'>x</div>',
    "<table background=https://example.org/x.png><tr><td>x</td></tr></table>",
    "<meta http-equiv=refresh content='0;url=https://example.org'>",
    "<!--><meta http-equiv=refresh content='0;url=https://example.org'>-->",
    "<!-- --!><img src=https://example.org/x.png> -->",
    "<noscript><p title='</noscript><meta http-equiv=refresh content=0;url=https://example.org>'></p></noscript>",
    "<xmp><p title='</xmp><img src=x onerror=alert(1)>'></p></xmp>", "<title>x</title>",
    "<base href=https://example.org>", "<form action=https://example.org><input></form>",
    "<button formaction='javascript:alert(1)'>x</button>",
    "<a href=https://example.org ping=https://example.org>x</a>", "<object data=https://example.org></object>",
    "<embed src=https://example.org>", "<video src=https://example.org/x.mp4></video>",
    "<video poster=https://example.org/x.png></video>", "<audio><source src=https://example.org/x.mp3></audio>",
    "</main></body><script>alert(1)</script>",
]
REFUSED = [
    "script", "style", "iframe", "frame", "object", "embed", "link", "form", "base", "title", "meta", "noscript", "xmp",
    "animate", "set",
]
REFUSED_ATTRIBUTES = ("srcset", "srcdoc", "poster", "ping", "background", "formaction", "xlink:href")
LINK = re.compile(r"(https?://|//|#|[\w./-]*$)")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_runs_and_nothing_is_fetched(hostile):
    printed = new_code_cell("x", outputs=[new_output("stream", text=hostile)])
    for cell in (shown(text_html=hostile), new_markdown_cell(f"# T\n\n{hostile}"), printed):
        body = parsed(notebook(cell))
        assert not body.main.find_all(REFUSED)
        assert not body.find_all(string=lambda text: isinstance(text, Comment))
        for tag in body.main.find_all(True):
            for name, value in tag.attrs.items():
                assert not name.startswith("on") and name not in REFUSED_ATTRIBUTES
                assert name != "src" or (tag.name == "img" and value.startswith("data:image/"))
                assert name != "href" or (tag.name == "a" and LINK.match(value))
                assert name not in ("style", "fill") or "example.org" not in value


def test_harmless_html_stays():
    kept = ('<p style="color: red" title="a url">x <a href="#top">up</a> <a href="compare.html">on</a> '
            '<a href="https://example.org/?a=b:c">far</a></p>')
    assert kept in str(parsed(notebook(shown(text_html=kept))))
    assert "url(#g)" in render(notebook(shown(text_html='<svg><rect fill="url(#g)"></rect></svg>')))


def test_mathematics_that_a_cell_shows():
    body = parsed(notebook(shown(text_latex="$\\displaystyle x^2 < 3$", text_plain="x**2 < 3")))
    assert body.main.math.find("msup") and "$" not in body.main.get_text()


def test_a_cell_that_shows_javascript_gives_the_same_page_each_time():
    script = notebook(shown(application_javascript="alert(1)"))
    assert render(script) == render(script)


def test_pictures_beside_the_notebook(tmp_path):
    (tmp_path / "a.png").write_bytes(base64.b64decode(picture()))
    (tmp_path / "code.py").write_text("secret = 1\n")
    text = "![a](a.png) <img src='a.png'> ![code](code.py) ![none](none.png) ![up](../../../etc/hostname)"
    body = parsed(notebook(new_markdown_cell(text)), tmp_path)
    assert [image["src"] for image in body.main.find_all("img")] == [f"data:image/png;base64,{picture()}"] * 2
    assert "secret" not in str(body)


def test_a_pasted_picture():
    """JupyterLab keeps it in the cell."""
    pasted = new_markdown_cell("![](attachment:a.png) ![](attachment:none.png) <img src='attachment:none.png'>")
    pasted["attachments"] = {"a.png": {"image/png": picture()}}
    body = parsed(notebook(pasted, new_markdown_cell("![](attachment:a.png)")))
    assert [image["src"] for image in body.main.find_all("img")] == [f"data:image/png;base64,{picture()}"]


def test_a_remote_image_becomes_a_link():
    body = parsed(notebook(new_markdown_cell("![a map](https://example.org/map.png)")))
    assert body.main.a["href"] == "https://example.org/map.png" and "a map" in body.main.a.get_text()
    assert not body.main.find("img")


def test_parameters_are_shown_once_with_values_and_meanings():
    cells = [new_code_cell('P = section("models.x")'), new_code_cell("lr: float = P.lr  # (0, 1] <pace> of it"),
             new_code_cell("# Parameters\nlr = 0.5\n")]
    cells[1].metadata["tags"], cells[2].metadata["tags"] = ["parameters"], ["injected-parameters"]
    made = notebook(*cells)
    body = parsed(made)
    table = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in body.main.find_all("tr")]
    assert table[1:] == [["lr", "0.5", "<pace> of it", "float (0, 1]"]]
    assert "P.lr" not in body.main.get_text() and len(made.cells) == 3


def test_long_code_is_folded_and_one_switch_shows_it():
    body = parsed(notebook(new_code_cell("a = 1\n" * 11), new_code_cell("b = 1\n" * 3)))
    folded = body.select("details.code")
    assert [each.summary.get_text() for each in folded] == ["11 lines of code"] and "b" not in folded[0].get_text()
    assert body.select_one("input#all-code") and not parsed(GOOD).select("input")


PLOTLY = '<div><script>window.PlotlyConfig = {}</script><div id="a" class="plotly-graph-div"></div></div>'


@pytest.mark.parametrize("data", [
    {"text/html": PLOTLY, "application/vnd.plotly.v1+json": {}}, {"text/html": "<iframe src=https://example.org>"},
    {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "FloatProgress(value=0.0)"},
    {"application/javascript": "alert(1)", "text/plain": "<Javascript>"},
])
def test_what_needs_a_script_leaves_a_sentence(data):
    output = new_output("display_data", data=data)
    assert "needs a script or a request" in parsed(notebook(new_code_cell("x", outputs=[output]))).main.get_text()


def test_a_picture_is_shown_where_a_script_is_not():
    output = new_output("display_data", data={"text/html": PLOTLY, "image/png": picture()})
    body = parsed(notebook(new_code_cell("x", outputs=[output])))
    assert body.main.img and "needs a script" not in body.main.get_text()


@pytest.mark.parametrize("left_open", ["<script>", "<style>", "<!--", "<textarea>", "<div title='", "<plaintext>"])
def test_what_an_output_leaves_open_ends_with_it(left_open):
    body = parsed(notebook(shown(text_html=f"before {left_open}"), new_markdown_cell(f"x {left_open}"), *GOOD.cells))
    assert "Apples & pears" in body.main.get_text() and body.main.img


def test_a_lone_surrogate_costs_one_letter():
    assert "before" in parsed(notebook(new_code_cell("x", outputs=[new_output("stream", text="before \ud800")]))).text


def test_a_figure_in_svg_stays_as_it_was():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M0 0"/></svg>'
    output = new_output("display_data", data={"image/svg+xml": svg})
    kind, _, content = parsed(notebook(new_code_cell("x", outputs=[output]))).main.img["src"].partition(",")
    assert kind == "data:image/svg+xml;base64" and base64.b64decode(content).decode() == svg


def test_a_drawing_keeps_its_form():
    drawing = ('<svg viewBox="0 0 9 9"><defs><linearGradient id="g"><stop offset="1" stop-color="red"></stop>'
               '</linearGradient><path id="m" d="M0 0"></path></defs><use xlink:href="#m" x="1"></use></svg>')
    body = parsed(notebook(shown(text_html=drawing)))
    assert body.svg["viewbox"] == "0 0 9 9" and body.find("lineargradient") and "#m" in str(body.find("use"))


def test_a_figure_without_words_gets_those_of_its_reading():
    reading = new_code_cell("y", outputs=[new_output("display_data", data={"text/markdown": "It falls to **0.1**."})])
    body = parsed(notebook(new_markdown_cell("## Loss"), shown(image_png=picture()), reading,
                           new_markdown_cell("## Errors"), shown(image_png=picture())))
    assert [image["alt"] for image in body.main.find_all("img")] == ["It falls to 0.1 .", "Figure: Errors"]


def test_a_failure_stands_on_top():
    body = parsed(notebook(*GOOD.cells, failure={"cell": 3, "error": "ValueError", "reason": "<b>bad</b>"}))
    first = body.main.find(True)
    assert first["class"] == ["failed"] and first.get_text().startswith("Failed at cell 3. ValueError: <b>bad</b>")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = chromium(playwright)
        yield started
        started.close()


def opened(browser, path, content, **options):
    """The page in the browser, what its console said and what it asked for beyond itself."""
    path.write_text(content, encoding="utf-8")
    tab = browser.new_page(**options)
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(path.as_uri())
    return tab, said, asked


@pytest.mark.xdist_group("page in a browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser, tmp_path, scheme):
    """Figures have a size, mathematics is set, the console is silent and nothing leaves the machine."""
    nbformat.validate(GOOD)
    tab, said, asked = opened(browser, tmp_path / "page.html", render(GOOD), color_scheme=scheme)
    widths = tab.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    boxes = tab.eval_on_selector_all("math", "all => all.map(each => each.getBoundingClientRect().toJSON())")
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.close()
    assert widths == [40] and len(boxes) == 2 and all(box["width"] > 10 and box["height"] > 10 for box in boxes)
    assert said == [] and [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert (background == "rgb(13, 17, 23)") is (scheme == "dark")


@pytest.mark.xdist_group("page in a browser")
@pytest.mark.parametrize("width", [1200, 1199, 390])
def test_contents_stand_beside_the_text_where_there_is_room(browser, tmp_path, width):
    """And one switch opens all code, without a script."""
    text = render(notebook(*GOOD.cells, new_code_cell("a = 1\n" * 11)))
    tab, _, _ = opened(browser, tmp_path / "page.html", text, viewport={"width": width, "height": 800})
    contents, main = (tab.locator(each).bounding_box() for each in ("nav.contents", "main"))
    assert (contents["x"] + contents["width"] <= main["x"]) is (width >= 1200)
    assert tab.locator("nav.contents a").first.is_visible() is (width >= 1200), "folded above the text"
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    code = tab.locator("details.code .input_area")
    assert not code.is_visible()
    tab.check("#all-code")
    shown = code.is_visible()
    tab.close()
    assert shown


@pytest.mark.xdist_group("page in a browser")
def test_a_hostile_page_in_a_browser(browser, tmp_path):
    """Not even an attempt: the page's policy would report one to the console."""
    path = tmp_path / "page.html"
    cells = [*map(new_markdown_cell, HOSTILE), *(shown(text_html=each) for each in HOSTILE)]
    tab, said, asked = opened(browser, path, render(notebook(*cells)))
    tab.wait_for_timeout(500)
    for link in tab.query_selector_all("a:not([href])"):
        link.evaluate("link => link.dispatchEvent(new MouseEvent('click'))")
    address = tab.url
    tab.close()
    assert said == [] and [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert address == path.as_uri()
