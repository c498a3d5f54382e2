"""The whole circle: serve, draw on the page, correct, watch, harvest, train, report, promote; the server never ends."""

import os
import random
import re
import sqlite3
import subprocess
from types import SimpleNamespace

import pytest
from browser import chromium
from playwright.sync_api import expect, sync_playwright
from projects import commit, copy_of_project, edit_params, nbproof, stages_run
from serving import Server

SLASHED = [[(140, 60), (90, 110), (90, 180), (140, 230), (190, 180), (190, 110), (140, 60)], [(180, 70), (100, 220)]]
DRAWINGS = 40  # of a zero with a slash through it, none like another
LEARNT = 0.8  # of the drawings that nobody learned from are right afterwards


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the example that has learned from the small digits, two models in few epochs, with a champion."""
    def change(content):
        content["data"]["source"] = "digits"
        del content["models"]["mlp"], content["sweep"]
        content["models"]["cnn"].update(width=16, top=32, epochs=6)
        content["models"]["linear"].update(epochs=12)  # with fewer it is near its floor

    folder = copy_of_project(tmp_path_factory.mktemp("circle") / "project")
    edit_params(folder, change)
    commit(folder)
    done = nbproof(folder, "run", "--jobs", "2")
    assert done.returncode == 0 and "cnn is the registered champion now" in done.stdout, done.stdout
    commit(folder)
    return folder


@pytest.fixture
def page(project):
    """The page of a server of the project, in a browser; neither is started again."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    variables = {name: os.environ[name] for name in kept if name in os.environ}
    server = Server(SimpleNamespace(root=project, variables=variables), ("--images",), {})
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        try:
            server.listens()
            page = browser.new_page()
            page.goto(server.address)
            page.wait_for_selector("#bars button")
            page.server = server
            yield page
        finally:
            browser.close()
            server.stop(9)


def draw(page, move: random.Random | None = None) -> str:
    """Draw a slashed zero, moved a little by chance, and wait until it is kept; what the page says it is."""
    page.click("#clear", force=True)
    box, across = page.locator("#board").bounding_box(), page.locator("#board").bounding_box()["width"] / 280
    for stroke in SLASHED:
        points = [(x + move.uniform(-9, 9), y + move.uniform(-9, 9)) if move else (x, y) for x, y in stroke]
        page.mouse.move(box["x"] + points[0][0] * across, box["y"] + points[0][1] * across)
        page.mouse.down()
        for x, y in points[1:]:
            page.mouse.move(box["x"] + x * across, box["y"] + y * across, steps=3)
        page.mouse.up()
    expect(page.locator("#heard")).to_have_text(re.compile(r"sure to|do not know"), timeout=20_000)
    said = page.inner_text("#digit")
    page.evaluate("document.getElementById('heard').textContent = ''")
    return said


def correct(page, label: str) -> None:
    page.click(f'#bars [data-label="{label}"]')
    expect(page.locator("#told")).to_have_text(re.compile(f"^Kept: it was a {label}"))


def answered(page, moves: list[int]) -> list[str]:
    """What the page says of the drawings with these seeds."""
    return [draw(page, random.Random(seed)) for seed in moves]


def test_what_was_wrong_is_right_without_a_restart(project, page):
    fresh = list(range(1000, 1010))
    wrong, before = draw(page), answered(page, fresh)
    assert wrong != "0" and before.count("0") < len(before) / 2, "there is something to learn"
    correct(page, "0")
    for seed in range(DRAWINGS - 1):
        draw(page, random.Random(seed))
        correct(page, "0")

    watched = nbproof(project, "drift")
    assert watched.returncode == 3 and "alarm: " in watched.stdout, watched.stdout  # so many zeros are no accident
    taken = nbproof(project, "harvest", "--yes")
    assert taken.returncode == 0, taken.stdout
    new = re.search(r"harvest: (\d+) new", taken.stdout)
    assert int(new[1]) > DRAWINGS / 2, taken.stdout  # some may be too strange
    edit_params(project, lambda content: content["data"].update(drawn=True))
    ran = nbproof(project, "run", "--jobs", "2")
    assert ran.returncode == 0 and {"data", "cnn", "linear"} <= stages_run(ran.stdout), ran.stdout

    reported = nbproof(project, "report")
    assert reported.returncode == 0 and "drawn" in reported.stdout, reported.stdout
    promoted = nbproof(project, "promote", "cnn")
    assert promoted.returncode == 0 and "champion" in promoted.stdout, promoted.stdout
    page.server.until(lambda: page.server.ask("/version")[1]["champion"]["version"] == "2")

    after = answered(page, fresh)
    assert draw(page) == "0" and after.count("0") >= LEARNT * len(after), (wrong, before, after)
    assert page.inner_text("#first") == "cnn, version 2" and page.server.process.poll() is None
    with sqlite3.connect(project / "served" / "log.sqlite") as log:
        assert log.execute("SELECT count(*) FROM labels WHERE label = '0'").fetchone() == (DRAWINGS,)
    assert "served" not in subprocess.check_output(["git", "status", "--short", "-uall"], cwd=project, text=True)
