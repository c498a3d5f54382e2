"""A page: one file that requests nothing and runs nothing, with all that a reader needs."""

import base64
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from browser import chromium, cut_off
from bs4 import BeautifulSoup, Comment
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from sklearn.linear_model import LogisticRegression

from nbproof.runner import html


def picture() -> str:
    """Return a small figure as base64 PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "red").save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def notebook(*cells, **metadata):
    """Return a notebook; a text stands for a Markdown cell."""
    made = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    return new_notebook(cells=made, metadata=metadata)


def shown(data: dict | None = None, **more):
    """Return a code cell that displayed `data`, and `more` such as text_html="<b>x</b>"."""
    more = {kind.replace("_", "/", 1): content for kind, content in more.items()}
    output = new_output("display_data", data=more | (data or {}))
    return new_code_cell("show()", outputs=[output])


def parsed(*cells, folder=Path("/nowhere"), **metadata) -> BeautifulSoup:
    return BeautifulSoup(html.render(notebook(*cells, **metadata), folder), "html.parser")


def sources(body: BeautifulSoup) -> list[str]:
    return [image["src"] for image in body.main.find_all("img")]


GOOD = (
    "# Title & more\n\n> subtitle\n\nInline $x^2 + \\bar{y}$ and\n\n"
    "$$\\frac{a}{b} < \\lVert x \\rVert_2$$",
    "## Apples & pears\n\n### Twice\n\ntext",
    shown(image_png=picture()),
    "## Twice\n\n| a | b |\n|:--|--:|\n| 1 | 2 |",
    new_code_cell("print(1)", outputs=[new_output("stream", text="<1>\n")]),
)


def test_it_is_whole_in_one_file():
    made = notebook(*GOOD)
    text = html.render(made, Path("/nowhere"), "good", "a stamp")
    body = BeautifulSoup(text, "html.parser")
    assert text == html.render(made, Path("/nowhere"), "good", "a stamp")
    assert body.title.string == "Title & more" and len(body.find_all("math")) == 2
    assert not body.find_all(["script", "link", "iframe"])
    assert sources(body) == [f"data:image/png;base64,{picture()}"]
    assert body.main.img["alt"] == "Figure: Twice", "a figure without words has its heading's"
    policy = body.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert "default-src 'none'" in policy and "form-action 'none'" in policy
    assert "prefers-color-scheme: dark" in text and "&lt;1&gt;" in text
    assert [link["href"] for link in body.select("nav.pages a")] == ["index.html"]


def test_contents_lead_to_headings_as_in_jupyter():
    body = parsed(*GOOD, "[see](#Apples-&-pears)")
    links = body.find("nav", {"aria-label": "Contents"}).find_all("a")
    assert [link.get_text() for link in links] == ["Apples & pears", "Twice", "Twice"]
    targets = [link["href"][1:] for link in links]
    assert targets == ["Apples-&-pears", "Twice", "Twice-1"]
    assert all(len(body.find_all(id=target)) == 1 for target in targets)


@pytest.mark.parametrize("opening", ["<details>\n<summary>S</summary>", "<div class='alert'>",
                                     "<div align=center>"])
def test_markdown_inside_html_is_shown_inside_it(opening):
    tag = opening[1:].split()[0].partition(">")[0]
    outer = parsed(f"# T\n\n{opening}\n\n$x^2$ and **bold**\n\n</{tag}>\n\nafter").main
    inner = outer.find("strong").find_parent(tag)
    assert inner.math and "after" not in inner.get_text()
    assert tag == "details" or inner.get("class") == ["alert"] or inner.get("align") == "center"


HOSTILE = [
    "</main></body><script>alert(1)</script>", "<img src=x onerror=alert(1)>",
    "<a href=' JaVaScRiPt:alert(1)'>x</a>",
    "<a href='&#1;da\tta:text/html,<script>alert(1)</script>'>x</a>",
    "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
    "<svg><a><animate attributeName=href values='javascript:alert(1)' /></a></svg>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<img srcset='//example.org/x.png 2x' src='//example.org/x.png'>",
    "<svg><use href='//example.org/x.svg#a' /><rect fill='url(//example.org/x.svg#a)' /></svg>",
    "<div style='background:u\\72l(//example.org/x.png)'>x</div>",
    "<div style='background:image-set(\"//example.org/x.png\" 1x)'>x</div>",
    "<table background=//example.org/x.png><tr><td>x</td></tr></table>",
    "<!--><meta http-equiv=refresh content='0;url=//example.org'>-->",
    "<noscript><p title='</noscript><meta http-equiv=refresh content=0;url=//example.org>'></p>",
    "<button formaction='javascript:alert(1)'>x</button>",
    "<a href=//example.org ping=//example.org>x</a>", "<object data=//example.org></object>",
    "<video src=//example.org/x.mp4 poster=//example.org/x.png></video>",
    "<style>@import url(//example.org/x.css)</style>",
]
REFUSED = ["script", "style", "iframe", "object", "title", "meta", "noscript", "animate", "button",
           "video"]
REFUSED_ATTRIBUTES = ("srcset", "srcdoc", "poster", "ping", "background", "formaction", "data",
                      "xlink:href")
LINK = re.compile("https?://|//|#")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_runs_and_nothing_is_requested(hostile):
    printed = new_code_cell("x", outputs=[new_output("stream", text=hostile)])
    body = parsed(shown(text_html=hostile), f"# T\n\n{hostile}", printed).main
    assert not body.find_all(REFUSED)
    assert not body.find_all(string=lambda text: isinstance(text, Comment))
    for tag in body.find_all(True):
        for name, value in tag.attrs.items():
            assert not name.startswith("on") and name not in REFUSED_ATTRIBUTES
            assert name != "src" or (tag.name == "img" and value.startswith("data:image/"))
            assert name != "href" or (tag.name == "a" and LINK.match(value))
            assert name not in ("style", "fill") or "example.org" not in value


def test_a_picture_whose_width_is_none_and_a_figure_in_svg():
    cell = shown(image_png=picture())
    cell.outputs[0].metadata["image/png"] = {"width": "1 onload=alert(1)"}
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M0 0"/></svg>'
    body = parsed(cell, "half a character \ud800", shown({"image/svg+xml": svg})).main
    encoded = base64.b64encode(svg.encode()).decode()
    assert "onload" not in body.img.attrs
    assert body.find_all("img")[1]["src"] == f"data:image/svg+xml;base64,{encoded}"


def test_harmless_html_stays():
    kept = ('<p style="color: red" title="a url">x <a href="#top">up</a> '
            '<a href="compare.html">on</a> <a href="https://example.org/?a=b:c">far</a></p>')
    assert kept in str(parsed(shown(text_html=kept)))


def test_drawings_with_the_same_ids_do_not_mix():
    drawing = ('<svg viewBox="0 0 9 9"><defs><linearGradient id="g"><stop offset="1" '
               'stop-color="red"></stop></linearGradient></defs><rect fill="url(#g)"></rect></svg>')
    uses = '<svg><use xlink:href="#g"></use></svg>'  # of a drawing before it, as xarray's icons
    body = parsed(shown(text_html=drawing), shown(text_html=drawing + uses), f"{drawing} text").main
    names = [gradient["id"] for gradient in body("lineargradient")]
    assert len({*names}) == 3 and body.svg["viewbox"] == "0 0 9 9"
    assert [rect["fill"] for rect in body("rect")] == [f"url(#{name})" for name in names]
    assert f'href="#{names[1]}"' in str(body.find("use"))


def test_a_table_keeps_its_colours_and_an_estimator_its_text():
    table = pd.DataFrame({"a": [1, 2]}).style.map(lambda value: f"color: {'red' * (value > 1)};")
    heads = [{"selector": "th", "props": "color: blue"}]
    body = parsed(shown(text_html=table.set_table_styles(heads).to_html())).main
    assert ["red" in cell.get("style", "") for cell in body("td")] == [False, True]
    assert all(cell["style"] == "color: blue;" for cell in body("th"))
    diagram = parsed(shown(text_html=LogisticRegression(C=3.0)._repr_html_())).main
    assert diagram.find("pre", string="LogisticRegression(C=3.0)")


def test_mathematics_that_a_cell_shows_and_that_nobody_knows():
    assert "\\nonsense{" in parsed("$\\nonsense{$ and $\\frac{1}$").get_text()
    body = parsed(shown(text_latex="$\\displaystyle x^2 < 3$", text_plain="x**2 < 3"))
    assert body.main.math.find("msup") and "$" not in body.main.get_text()


def test_pictures_beside_the_notebook(tmp_path):
    (tmp_path / "a b.png").write_bytes(base64.b64decode(picture()))
    (tmp_path / "code.py").write_text("secret = 1\n")
    text = ("![a](a%20b.png) <img src='a b.png'> ![code](code.py) ![none](none.png) "
            f"![up](../../../etc/hostname) ![zero](%00.png) ![long]({'x' * 999}.png)")
    body = parsed(text, folder=tmp_path)
    assert sources(body) == [f"data:image/png;base64,{picture()}"] * 2
    assert "secret" not in str(body) and "none (none.png, not part of" in body.main.get_text()
    remote = parsed("![a map](https://example.org/map.png)").main.em.get_text()
    assert remote == "a map (https://example.org/map.png, not part of this page)"


def test_pictures_pasted_into_a_cell():
    """JupyterLab keeps them in the cell, whatever their names; another cell's are not there."""
    pasted = new_markdown_cell("![](attachment:a.png) ![](attachment:p%20q.png) "
                               "![e](attachment:e.html) <img src='attachment:a.png'> "
                               "![gone](attachment:gone.png)")
    pasted["attachments"] = {"a.png": {"image/png": picture()}, "p q.png": {"image/png": picture()},
                             "e.html": {"text/html": "PGI+"}}
    body = parsed(pasted, "![](attachment:a.png)")
    assert sources(body) == [f"data:image/png;base64,{picture()}"] * 3
    assert not body.main.find("a") and "gone (attachment:gone.png" in body.main.get_text()


def test_parameters_are_shown_once_with_values_and_meanings():
    cells = [new_code_cell('P = section("models.x")'),
             new_code_cell("lr: float = P.lr  # (0, 1] <pace> of it"),
             new_code_cell("# Parameters\nlr = 0.5\n", id="injected-parameters")]
    cells[1].metadata["tags"], cells[2].metadata["tags"] = ["parameters"], ["injected-parameters"]
    body = parsed(*cells).main
    rows = [[cell.get_text() for cell in row.find_all("td")] for row in body.find_all("tr")]
    assert rows[1:] == [["lr", "0.5", "<pace> of it", "float (0, 1]"]]
    assert "P.lr" not in body.get_text() and body.find(id="cell-id=injected-parameters")
    cells[1].outputs = [new_output("error", ename="E", evalue="", traceback=["KeyError: 'lr'"])]
    assert "KeyError" in parsed(*cells).main.get_text(), "unless it is the cell that failed"


def test_one_switch_shows_the_code_and_some_is_always_shown():
    cells = [new_code_cell("a = 1"), new_code_cell("b = 1"), new_code_cell("c = 1")]
    cells[1].metadata["tags"] = ["show-code"]
    cells[2].outputs = [new_output("error", ename="E", evalue="", traceback=["E"])]
    body = parsed(*cells)
    shown = [part.get_text().strip() for part in body.select(".code.shown")]
    assert shown == ["b = 1", "c = 1"] and len(body.select(".code")) == 3
    assert body.select_one("nav#code input#all-code") and not parsed("# T").select("input")


ANSWERED = ("# T\n\n> why?", "text\n\n## What we learned\n\nIt is so.",
            shown(text_markdown="**0.5** of them."), "## Later", shown(text_markdown="no answer"))


def test_the_answer_stands_on_top():
    body = parsed(*ANSWERED).main
    answer = body.select_one(".answer")
    assert answer.get_text(" ", strip=True) == "It is so. 0.5 of them." and answer.strong
    assert answer.find_previous_sibling().name == "blockquote"
    assert not parsed(*GOOD).select(".answer")
    failure = {"cell": 3, "error": "E", "reason": "r"}
    assert not parsed(*ANSWERED, failure=failure).select(".answer"), "it has not come that far"


def test_links_to_notebooks_lead_to_pages_and_no_link_leads_nowhere():
    text = ("[n](cnn.ipynb#a) [p](../production/know.ipynb) [code](mnist/data.py) [r](other.ipynb) "
            "[each](export.ipynb)")
    page = html.render(notebook(text), Path("/nowhere"), pages=["cnn", "know", "export@cnn"])
    links = {link.get_text(): link["href"] for link in BeautifulSoup(page, "html.parser").main("a")}
    assert links == {"n": "cnn.html#a", "p": "know.html", "each": "export%40cnn.html"}
    assert "code r" in page


PLOTLY = ('<div><script>window.PlotlyConfig = {}</script>'
          '<div id="a" class="plotly-graph-div"></div></div>')
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.mark.parametrize(("data", "missing"), [
    ({"text/html": PLOTLY, "application/vnd.plotly.v1+json": {}}, True),
    ({WIDGET: {"model_id": "a"}, "text/plain": "FloatProgress(value=0.0)"}, True),
    ({"text/html": PLOTLY, "image/png": picture()}, False),
    ({"text/html": "<style>p {}</style>"}, False),
])
def test_what_needs_a_script_leaves_a_sentence(data, missing):
    body = parsed(shown(data)).main
    assert ("needs a script or a request" in body.get_text()) is missing
    assert bool(body.img) is ("image/png" in data)


@pytest.mark.parametrize("left_open", ["<script>", "<!--", "<textarea>", "<div title='"])
def test_what_an_output_leaves_open_ends_with_it(left_open):
    body = parsed(shown(text_html=f"before {left_open}"), f"x {left_open}", *GOOD).main
    assert "Apples & pears" in body.get_text() and body.img


def test_a_failure_stands_on_top():
    failure = {"cell": 3, "error": "ValueError", "reason": "<b>bad</b>"}
    body = parsed(*GOOD, failure=failure).main
    first = body.find(True)
    assert first["class"] == ["failed"]
    assert first.get_text().startswith("Failed at cell 3. ValueError: <b>bad</b>")
    assert body.find(id=first.a["href"][1:]).img, "the link leads to the cell"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = chromium(playwright)
        yield started
        started.close()


@pytest.mark.xdist_group("page in a browser")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_in_a_browser(browser, tmp_path, scheme, width):
    """Figures and mathematics have a size, contents stand where there is room, code unfolds, a
    wide table is whole on a phone, and nothing hostile is even tried."""
    table = "| " + " | ".join("a long name of a column" for _ in range(6)) + " |\n"
    table += "|--" * 6 + "|\n" + "| 0.123456789 " * 6 + "|"
    cells = [*GOOD, table, new_code_cell("a = 1\n" * 11)]
    path, printed, requested = tmp_path / "page.html", [], []
    tab = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    tab.on("console", lambda message: printed.append(message.text))  # also what the policy refuses
    tab.on("request", lambda request: requested.append(request.url))
    for shows in ([*HOSTILE, *(shown(text_html=text) for text in HOSTILE)], cells):
        path.write_text(html.render(notebook(*shows), Path("/nowhere")), encoding="utf-8")
        tab.goto(path.as_uri())
    boxes = [box.bounding_box() for box in tab.query_selector_all("main img, math")]
    assert len(boxes) == 3 and all(box["width"] > 10 and box["height"] > 10 for box in boxes)
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(13, 17, 23)") is (scheme == "dark")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.locator("nav.contents a").first.is_visible() is (width >= 1200)
    code = tab.locator(".code .input_area").last
    assert not code.is_visible()
    tab.check("#all-code")
    assert code.is_visible() and cut_off(tab) == []
    tab.close()
    assert not printed and all(url.startswith(("file:", "data:")) for url in requested)
