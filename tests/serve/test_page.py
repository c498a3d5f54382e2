"""The page to draw on, in a real browser: with a mouse, with a finger, by keys, light and dark."""

import re
import sqlite3

import pytest
from browser import chromium
from playwright.sync_api import expect, sync_playwright

LOW_CONTRAST = """() => {
  const part = value => value <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
  const light = text => text.match(/[\\d.]+/g).slice(0, 3)
    .reduce((sum, value, n) => sum + part(value / 255) * [.2126, .7152, .0722][n], 0);
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('h1, p, li, b, figcaption, summary, button:enabled')]
    .filter(each => each.innerText.trim())
    .map(each => [each.innerText, light(getComputedStyle(each).color)])
    .map(([text, ink]) => [text, (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05)])
    .filter(([, contrast]) => contrast < 4.5);
}"""
SEVEN = [(90, 70), (130, 68), (190, 72), (170, 120), (140, 180), (120, 230)]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        started = chromium(playwright)
        yield started
        started.close()


@pytest.fixture
def opened(served, nets, browser):
    """The page of a server that says 7 and, in its shadow, 3; whatever the browser complains of fails the test."""
    served.register(nets[7])
    served.register(nets[3], "other", "challenger")
    server = served.start("--images")
    contexts, complaints = [], []

    def open_page(**options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith(
            (server.address, "blob:", "data:")) else None)
        page.goto(server.address)
        page.wait_for_selector("#bars button")
        page.server, page.project = server, served
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def says(page, id: str, text: str, begins: bool = False) -> None:
    """Wait until the element says `text`."""
    expect(page.locator(f"#{id}")).to_have_text(re.compile(f"^{re.escape(text)}{'' if begins else '$'}"))


def draw(page, stroke=SEVEN) -> None:
    box = page.locator("#board").bounding_box()
    points = [(box["x"] + x * box["width"] / 280, box["y"] + y * box["width"] / 280) for x, y in stroke]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=5)
    page.mouse.up()


def labels(project) -> list[tuple]:
    with sqlite3.connect(project.root / "served" / "log.sqlite") as database:
        return database.execute("SELECT label, best, input IS NOT NULL FROM labels JOIN answers USING (id)").fetchall()


def height(page, digit: int, which: str = "i") -> float:
    return float(re.search(r"[\d.]+", page.locator(f'#bars [data-label="{digit}"] {which}').first.evaluate(
        "bar => bar.style.transform")).group())


def test_a_drawing_is_read_corrected_and_kept_once(opened):
    page = opened()
    assert page.locator("#bars button").count() == 10 and page.locator("#bars button").first.is_disabled()
    draw(page)
    says(page, "digit", "7")
    assert [height(page, 7), height(page, 3, "i.second")] == pytest.approx([0.9, 0.9], abs=0.01)
    assert page.inner_text("#why") == "The shadow says 3" and re.fullmatch(r"in [\d.]+ ms", page.inner_text("#time"))
    seen = page.evaluate("() => { const c = document.getElementById('seen'); return [...c.getContext('2d')"
                         ".getImageData(0, 0, c.width, c.height).data].filter((_, n) => n % 4 === 0) }")
    assert len(seen) == 784 and max(seen) == 255 and 30 < sum(value > 100 for value in seen) < 250
    page.click('#bars [data-label="1"]')
    says(page, "told", "Kept: it was a 1", begins=True)
    assert page.get_attribute('#bars [data-label="1"]', "aria-pressed") == "true"
    assert labels(page.project) == [("1", "7", 1)]
    page.wait_for_timeout(1200)
    with sqlite3.connect(page.project.root / "served" / "log.sqlite") as database:
        assert database.execute("SELECT COUNT(*) FROM answers").fetchone() == (1,)  # of many looks, one is kept
    draw(page)  # the next stroke is the next drawing
    says(page, "told", "")
    page.keyboard.press("7")
    says(page, "told", "Kept: it was a 7", begins=True)
    assert [label for label, _, _ in labels(page.project)] == ["1", "7"]


def test_bars_move_while_one_draws(opened):
    page = opened()
    box = page.locator("#board").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 250, steps=10)
    says(page, "digit", "7")  # and the mouse is still down
    page.mouse.up()
    page.click("#undo")
    says(page, "sure", "Waiting for a stroke")
    assert page.locator("#clear").is_disabled() and height(page, 7) == 0


def test_by_keys_alone(opened):
    page = opened()
    page.focus("#board")
    for key in ["Space", *["ArrowDown"] * 12, *["ArrowRight"] * 3, "Space"]:
        page.keyboard.press(key)
    says(page, "digit", "7")
    says(page, "heard", "7, sure to 90.0 %", begins=True)
    page.keyboard.press("4")
    says(page, "told", "Kept: it was a 4", begins=True)
    page.keyboard.press("Delete")
    says(page, "sure", "Waiting for a stroke")


def test_with_a_finger_on_a_phone(opened):
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, color_scheme="dark")
    session = page.context.new_cdp_session(page)
    box = page.locator("#board").bounding_box()
    points = [{"x": box["x"] + x * box["width"] / 280, "y": box["y"] + y * box["width"] / 280} for x, y in SEVEN]
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": points[:1]})
    for point in points[1:]:
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    says(page, "digit", "7")
    page.tap('#bars [data-label="7"]')
    says(page, "told", "Kept: it was a 7", begins=True)
    wide, scrolled = page.evaluate("[document.documentElement.scrollWidth, scrollY]")
    assert wide == 390 and scrolled == 0  # a finger draws and does not scroll


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(opened, scheme):
    """Text has the contrast that WCAG asks for, buttons have names, nothing is wider than the window."""
    page = opened(color_scheme=scheme)
    draw(page)
    says(page, "digit", "7")
    page.wait_for_timeout(400)
    low = page.evaluate(LOW_CONTRAST)
    assert low == []
    tree = page.locator("body").aria_snapshot()
    assert 'button "It was a 7 (champion 90.0 %, shadow 1.1 %)"' in tree and "Board to draw one digit on" in tree
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_the_new_version_answers_without_a_reload_of_the_page(opened, nets):
    page = opened()
    draw(page)
    says(page, "digit", "7")
    version = page.project.register(nets[3])
    page.server.until(lambda: page.server.says() == "3")
    draw(page)
    says(page, "digit", "3")
    assert page.inner_text("#first") == f"net, version {version}"


def test_a_server_that_is_gone_is_said(served, nets, browser):
    served.register(nets[7])
    server, page = served.start(), browser.new_page()
    page.goto(server.address)
    page.wait_for_selector("#bars button")
    server.stop(9)
    draw(page)
    says(page, "told", "The server does not answer", begins=True)
    page.close()


def test_a_token_is_asked_for(served, nets, browser):
    served.register(nets[7])
    server, page = served.start(NBPROOF_TOKEN="0123456789abcdef"), browser.new_page()
    page.goto(server.address)
    for token in ("wrong", "0123456789abcdef"):
        page.wait_for_selector("#gate[open]")
        page.fill("#token", token)
        page.click("#gate button")
        page.wait_for_timeout(300)
    page.wait_for_selector("#bars button")
    draw(page)
    says(page, "digit", "7")
    page.close()
