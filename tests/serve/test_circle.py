"""The circle: serve, draw, correct, drift, harvest, train, report, promote; the server goes on."""

import os
import random
import re
import shutil

import pytest
from browser import chromium
from playwright.sync_api import expect, sync_playwright
from projects import commit, copy_of_project, edit_params, nbproof, stages_run
from serving import ROOT, Server, environment_of_servers

from nbproof.workspace import bootstrap

SLASHED = [[(140, 60), (90, 110), (90, 180), (140, 230), (190, 180), (190, 110), (140, 60)],
           [(180, 70), (100, 220)]]
DRAWINGS = 40  # of a zero with a slash through it, all different
LEARNT = 0.8  # of the drawings that nobody learned from are right afterwards


@pytest.fixture
def project(tmp_path):
    """A copy of the example that has learned from the small digits, with a champion."""
    def change(content):
        content["data"]["source"] = "digits"
        del content["models"]["mlp"], content["sweep"]
        content["models"]["cnn"].update(width=16, top=32, epochs=6)
        content["models"]["linear"].update(epochs=12)

    folder = copy_of_project(tmp_path / "project")
    shutil.rmtree(folder / "nbproof")  # a project has nbproof installed
    text = (folder / "dvc.yaml").read_text()
    (folder / "dvc.yaml").write_text(re.sub(r"\n +- models/mlp\S*", "", text))
    edit_params(folder, change)
    commit(folder)
    done = nbproof(folder, "run", "--jobs", "2")
    assert done.returncode == 0 and "cnn is the registered champion" in done.stdout, done.stdout
    commit(folder)
    return folder


@pytest.fixture
def page(project):
    """The page of a server of the project, in a browser; neither is started again."""
    python = environment_of_servers() / bootstrap.PYTHON
    server = Server([python, "-m", "nbproof", "serve", "--port", "0", "--images"], project,
                    {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)})
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


def draw(page, seed: int) -> str:
    """Draw a slashed zero, moved a little by chance, until it is logged; return the prediction."""
    chance, box = random.Random(seed), page.locator("#board").bounding_box()
    scale = box["width"] / 280
    page.evaluate("document.getElementById('announcement').textContent = ''")
    page.click("#clear", force=True)
    for stroke in SLASHED:
        points = [(box["x"] + scale * (x + chance.uniform(-9, 9)),
                   box["y"] + scale * (y + chance.uniform(-9, 9))) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=3)
        page.mouse.up()
    expect(page.locator("#announcement")).to_have_text(re.compile("sure|No answer"), timeout=20_000)
    return page.inner_text("#digit")


def test_what_was_wrong_is_right_without_a_restart(project, page):
    fresh = range(1000, 1010)
    before = [draw(page, seed) for seed in fresh]
    assert before.count("0") < len(before) / 2, "there is something to learn"
    for seed in range(DRAWINGS):
        draw(page, seed)
        page.click('#bars [data-label="0"]')
        expect(page.locator("#status")).to_have_text(re.compile("^Saved as a 0"))
    drift = nbproof(project, "drift")
    assert drift.returncode == 3 and "alarm: " in drift.stdout, drift.stdout
    harvest = nbproof(project, "harvest", "--yes")
    assert harvest.returncode == 0, harvest.stdout
    assert int(re.search(r"harvest: (\d+) new", harvest.stdout)[1]) > DRAWINGS / 2
    edit_params(project, lambda content: content["data"].update(collected=True))
    ran = nbproof(project, "run", "--jobs", "2", "--no-register")
    assert ran.returncode == 0 and {"data", "cnn"} <= stages_run(ran.stdout), ran.stdout
    reported = nbproof(project, "report")
    assert reported.returncode == 0 and "collected" in reported.stdout, reported.stdout
    promoted = nbproof(project, "promote", "cnn")
    assert promoted.returncode == 0, promoted.stdout
    page.server.until(lambda: page.server.ask("/version")[1]["champion"]["version"] == "2")
    after = [draw(page, seed) for seed in fresh]
    assert after.count("0") >= LEARNT * len(after), (before, after)
    assert page.inner_text("#first") == "cnn, version 2" and page.server.process.poll() is None
