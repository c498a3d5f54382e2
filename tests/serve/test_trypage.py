"""reports/try-NAME.html: one file without a request that asks the model in the browser, and says what Python says."""

import base64
import io
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from browser import chromium
from PIL import Image, ImageDraw
from playwright.sync_api import expect, sync_playwright
from portable_models import portable
from serving import MLMODEL, ROOT, Served


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a model that says 7, open in a browser, and what it asked for and complained of."""
    project = Served(tmp_path_factory.mktemp("try") / "project")
    portable(project.root / "models" / "net.onnx", 7)
    (project.root / "models" / "net").mkdir()
    (project.root / "models" / "net" / "MLmodel").write_text(MLMODEL)
    if (kept := ROOT / "scratch" / "onnxruntime-web").exists():  # it comes from npm once
        shutil.copytree(kept, project.root / "scratch" / "onnxruntime-web")
    done = subprocess.run([sys.executable, "-m", "nbproof", "try", "net"], cwd=project.root, text=True,
                          env=project.variables, capture_output=True)
    assert done.returncode == 0 and re.search(r"try-net.html: \d\.\d MB", done.stdout), done.stderr
    shutil.copytree(project.root / "scratch" / "onnxruntime-web", kept, dirs_exist_ok=True)
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        opened, said = browser.new_page(), []
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on("request", lambda asked: said.append(asked.url))
        opened.goto((project.root / "reports" / "try-net.html").as_uri())
        opened.wait_for_selector("#bars button")
        opened.project = project
        yield opened
        assert [each for each in said if not each.startswith(("blob:", "file:"))] == []
        browser.close()


def test_it_says_what_pytorch_said(page):
    """The answers that are stored with the model, from the library that trained it."""
    held = {each.key: each.value for each in onnx.load(page.project.root / "models" / "net.onnx").metadata_props}
    inputs, expected = (np.frombuffer(base64.b64decode(held[f"check_{each}"]), "<f4")
                        for each in ("inputs", "probabilities"))
    asked = "async values => [...(await localModel.run(Float32Array.from(values))).outputs]"
    found = page.evaluate(asked, inputs.tolist())
    assert np.abs(np.array(found) - expected).max() < 1e-4


def test_it_prepares_a_picture_as_python_does(page):
    from mnist import ask

    image = Image.new("L", (280, 280), 255)
    ImageDraw.Draw(image).line([(80, 60), (200, 65), (130, 240)], fill=0, width=20)
    content = io.BytesIO()
    image.save(content, "PNG")
    metadata = {"mean": 0.13, "deviation": 0.31, "ink": "bright", "ink_side": 20}
    expected = ask.prepare([content], metadata).ravel()
    found = page.evaluate("""async ([text, metadata]) => {
        const bytes = Uint8Array.from(atob(text), each => each.charCodeAt(0));
        return [...await prepare(new Blob([bytes], {type: "image/png"}), metadata)];
    }""", [base64.b64encode(content.getvalue()).decode(), metadata])
    assert np.abs(np.array(found) - expected).max() < 0.05  # of 3.2: a step of 8 bits, twice


def test_one_draws_on_it(page):
    box = page.locator("#board").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 250, box["y"] + 300, steps=8)
    page.mouse.up()
    expect(page.locator("#digit")).to_have_text("7")
    expect(page.locator("#first")).to_have_text("net, version of this branch")
    page.click('#bars [data-label="3"]')
    expect(page.locator("#ask")).to_have_text("The model is in this page: nothing is sent or kept.")
    expect(page.locator("#told")).to_have_text("")
