"""The page of an executed notebook: whole in one file, asks for nothing, runs nothing."""

import base64
import io
import re
import shutil

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from pipeline.stage import page


def picture() -> str:
    """A small figure as base64 PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), "steelblue").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def notebook(*cells, **metadata):
    made = new_notebook(cells=list(cells))
    made.metadata.update(metadata)
    return made


def shown(**data):
    return new_code_cell("show()", execution_count=1, outputs=[new_output("display_data", data={key.replace("_", "/"): value for key, value in data.items()})])


GOOD = notebook(
    new_markdown_cell("# Title & more\n\n> subtitle\n\nInline $x^2 + \\bar{y}$ and\n\n$$\\frac{a}{b} < \\lVert x \\rVert_2$$"),
    new_markdown_cell("## Apples & pears\n\n### Twice\n\ntext"),
    shown(image_png=picture()),
    new_markdown_cell("## Twice\n\n| a | b |\n|:--|--:|\n| 1 | 2 |"),
    new_code_cell("print(1)", execution_count=2, outputs=[new_output("stream", text="<1>\n")]),
)


def test_whole_in_one_file():
    text = page.render(GOOD)
    body = BeautifulSoup(text, "html.parser")
    assert text == page.render(GOOD) and len(text) < 100_000
    assert body.title.string == "Title & more" and len(body.find_all("math")) == 2
    assert not body.find_all(["script", "link", "iframe"]) and [image["src"][:11] for image in body.find_all("img")] == ["data:image/"]
    assert "default-src 'none'" in body.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert "prefers-color-scheme: dark" in text and "&lt;1&gt;" in text


def test_contents_lead_to_headings():
    body = BeautifulSoup(page.render(GOOD), "html.parser")
    targets = [link["href"][1:] for link in body.nav.find_all("a")]
    assert [link.get_text() for link in body.nav.find_all("a")] == ["Apples & pears", "Twice", "Twice"]
    assert len(set(targets)) == 3 and all(re.fullmatch(r"[a-z0-9-]+", each) and len(body.find_all(id=each)) == 1 for each in targets)


def test_unknown_mathematics_stays_readable():
    assert "\\nonsense{" in BeautifulSoup(page.render(notebook(new_markdown_cell("$\\nonsense{$ and $\\frac{1}$"))), "html.parser").get_text()


@pytest.mark.parametrize("hostile", [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)><script>alert(1)</script></svg>",
    "<iframe src=https://example.org></iframe>", "<a href='javascript:alert(1)'>x</a>", "<a href=' JaVaScRiPt:alert(1)'>x</a>",
    "<img src='https://example.org/x.png' alt=far>", "<style>@import url(https://example.org/x.css)</style>", "<link rel=stylesheet href=https://example.org>",
    "<meta http-equiv=refresh content='0;url=https://example.org'>", "<form action=https://example.org><input></form>",
    "<object data=https://example.org></object>", "<video src=https://example.org/x.mp4></video>", "<base href=https://example.org>",
    "<div style='background:url(https://example.org/x.png)'>x</div>", "<img srcset='https://example.org/x.png 2x' src='data:image/png;base64,AA=='>",
])
def test_nothing_runs_and_nothing_is_fetched(hostile):
    for cell in (shown(text_html=hostile), new_markdown_cell(f"# T\n\n{hostile}"), new_code_cell("x", outputs=[new_output("stream", text=hostile)])):
        body = BeautifulSoup(page.render(notebook(cell)), "html.parser")
        assert not body.find_all(["script", "iframe", "object", "embed", "link", "form", "base", "video"])
        assert [meta.get("http-equiv") for meta in body.find_all("meta") if meta.get("http-equiv")] == ["Content-Security-Policy"]
        assert not [tag for tag in body.find_all(True) for name in tag.attrs if name.startswith("on") or name == "srcset"]
        assert not [tag for tag in body.find_all(src=True) if not tag["src"].startswith("data:image/")]
        assert not [tag for tag in body.find_all(href=True) if "script" in tag["href"].lower()]


def test_a_remote_image_becomes_a_link():
    body = BeautifulSoup(page.render(notebook(new_markdown_cell("![a map](https://example.org/map.png)"))), "html.parser")
    assert body.main.a["href"] == "https://example.org/map.png" and "a map" in body.main.a.get_text() and not body.main.find("img")


def test_a_failure_stands_on_top():
    body = BeautifulSoup(page.render(notebook(*GOOD.cells, failure={"cell": 3, "error": "ValueError", "reason": "<b>bad</b>"})), "html.parser")
    first = body.main.find(True)
    assert first["class"] == ["failed"] and first.get_text().startswith("Failed at cell 3. ValueError: <b>bad</b>")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(tmp_path, scheme):
    """Figures have a size, mathematics is set, the console is silent and nothing leaves the machine."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not chromium:
        pytest.skip("no Chromium on the PATH: the page was not opened in a browser")
    from playwright.sync_api import sync_playwright

    nbformat.validate(GOOD)
    path = tmp_path / "page.html"
    path.write_text(page.render(GOOD), encoding="utf-8")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        opened = browser.new_page(color_scheme=scheme)
        said, asked = [], []
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(path.as_uri())
        widths = opened.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
        boxes = opened.eval_on_selector_all("math", "all => all.map(each => [each.getBoundingClientRect().width, each.getBoundingClientRect().height])")
        background = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        browser.close()
    assert widths == [40] and len(boxes) == 2 and all(width > 10 and height > 10 for width, height in boxes)
    assert said == [] and [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert (background == "rgb(13, 17, 23)") is (scheme == "dark")
