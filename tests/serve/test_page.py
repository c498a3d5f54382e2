"""The page in a real browser: by mouse, finger and keys, and with its model inside."""

import base64
import re
import shutil

import numpy as np
import onnx
import pytest
from browser import chromium
from playwright.sync_api import expect, sync_playwright
from serving import ROOT, TOKEN

from nbproof.notebook import served as reader
from nbproof.serve import trypage

SEVEN = [(90, 70), (130, 68), (190, 72), (170, 120), (140, 180), (120, 230)]


@pytest.fixture
def opened():
    """`opened(address)` is its page; what the browser complains about fails the test."""
    complaints = []
    with sync_playwright() as playwright:
        browser = chromium(playwright)

        def open_page(address: str):
            page = browser.new_page()
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: None if request.url.startswith(
                (address, "blob:", "data:")) else complaints.append(request.url))
            page.goto(address)
            return page

        yield open_page
        browser.close()
    expected = ("401", "ERR_CONNECTION_REFUSED")
    assert [text for text in complaints if not any(word in text for word in expected)] == []


def shows(page, id: str, text: str) -> None:
    expect(page.locator(f"#{id}")).to_have_text(re.compile(text), timeout=20_000)


def draw(page) -> None:
    box = page.locator("#board").bounding_box()
    points = [(box["x"] + x * box["width"] / 280, box["y"] + y * box["width"] / 280)
              for x, y in SEVEN]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=5)
    page.mouse.up()
    shows(page, "digit", "^7$")


def test_a_drawing_is_predicted_labelled_and_logged_once(served, nets, opened, inside):
    server = served.put(nets[7]).start("--images", NBPROOF_TOKEN=TOKEN)
    page = opened(server.address)
    for token in ("wrong", TOKEN):
        page.wait_for_selector("#gate[open]")
        page.fill("#token", token)
        page.click("#gate button")
        page.wait_for_timeout(1300)  # a wrong token costs a second
    page.wait_for_selector("#bars button")
    draw(page)
    page.click('#bars [data-label="1"]')
    shows(page, "status", "^Saved as a 1")
    page.focus("#board")
    page.keyboard.press("Delete")
    for key in ["Space", *["ArrowDown"] * 12, *["ArrowRight"] * 3, "Space"]:
        page.keyboard.press(key)
    shows(page, "announcement", "^7, 90.0%")
    page.keyboard.press("4")
    shows(page, "status", "^Saved as a 4")
    server.stop()
    inside(served.root)
    log = reader.served()
    assert [log["label"][:2], log["best"][:2]] == [["1", "4"], ["7", "7"]]
    page.click("#clear")
    page.locator("#board").click(position={"x": 100, "y": 100})
    shows(page, "status", "^The server does not respond")


def test_the_page_with_its_model_inside(served, nets, opened, inside):
    page_file = served.root / "notebooks/production/draw.html"
    page_file.write_text(page_file.read_text().replace("</body>", ""))  # as HTML allows
    kept = ROOT / "scratch" / f"{trypage.PACKAGE.replace('@', '-')}.tgz"
    if kept.exists():  # it comes from npm once
        (served.root / "scratch").mkdir()
        shutil.copy(kept, served.root / "scratch")
    inside(served.put(nets[7]).root)
    assert trypage.try_page("net") == 0
    page = opened((served.root / "reports/try-net.html").as_uri())
    page.wait_for_selector("#bars button")
    draw(page)
    shows(page, "first", "^net, version of this branch$")
    stored = {pair.key: pair.value for pair in onnx.load(nets[7]).metadata_props}
    inputs, expected = (np.frombuffer(base64.b64decode(stored[f"check_{name}"]), "<f4")
                        for name in ("inputs", "probabilities"))
    run = "async values => [...(await localModel.run(Float32Array.from(values))).outputs]"
    assert np.abs(np.array(page.evaluate(run, inputs.tolist())) - expected).max() < 1e-4
