"""`make pictures`: the README's pictures, comment.png, page.png and draw.png in docs/, from the results in this folder.

The comment is a real report: in a clone one parameter is changed and the pipeline runs. Charts are drawn where MERMAID
names a file mermaid.min.js (from the npm package mermaid), as GitHub draws them. CHROMIUM names the browser.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from markdown_it import MarkdownIt
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
STYLE = """
body { font: 14px/1.5 -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; color: #1f2328;
  width: 780px; margin: 20px; border: 1px solid #d1d9e0; border-radius: 6px; padding: 4px 16px; }
table { border-collapse: collapse; margin: 12px 0; } th, td { border: 1px solid #d1d9e0; padding: 6px 13px; }
tr:nth-child(2n) { background: #f6f8fa; } code { background: #eff1f3; border-radius: 6px; padding: .2em .4em;
  font: 12px ui-monospace, "DejaVu Sans Mono", monospace; } pre { background: #f6f8fa; padding: 12px; overflow: auto; }
pre code { background: none; padding: 0; } h3 { margin: 20px 0 8px; } a { color: #0969da; text-decoration: none; }
details { margin: 8px 0; } summary { cursor: pointer; }
"""


def report() -> str:
    """The report on a branch in which one parameter is changed, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / ROOT.name
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        shutil.copytree(ROOT / ".dvc" / "cache", clone / ".dvc" / "cache")
        run = [sys.executable, "-m"]
        subprocess.run([*run, "dvc", "checkout", "-q"], cwd=clone, check=True)
        params = clone / "params.yaml"
        text = params.read_text(encoding="utf-8")
        params.write_text(text.replace("hidden: 128\n    epochs: 20", "hidden: 64\n    epochs: 20"), encoding="utf-8")
        subprocess.run([*run, "nbproof", "run", "--no-fallback"], cwd=clone, check=True)
        done = subprocess.run([*run, "nbproof", "report", "--base", "HEAD"], cwd=clone, check=True, capture_output=True)
        if kept := os.environ.get("CHANGES"):  # the page before and after of the same change, to look at
            shutil.copy(clone / "reports" / "review.html", kept)
        return done.stdout.decode()


def page_of(markdown: str) -> str:
    """A report as GitHub shows it, as far as its own looks matter."""
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    charts = re.compile('<pre><code class="language-mermaid">(.*?)</code></pre>', re.DOTALL)
    body = charts.sub(r'<pre class="mermaid">\1</pre>', body)
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><body>{body}"


def draw(browser) -> None:
    """A seven on the page of `make serve`, which answers from the results in this folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "nbproof", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT) as server:
        try:
            page = browser.new_page(viewport={"width": 1180, "height": 760}, device_scale_factor=1)
            for _ in range(60):
                with contextlib.suppress(Exception):  # it is not up yet
                    page.goto(f"http://127.0.0.1:{port}/")
                    break
                time.sleep(1)
            board = page.locator("canvas").first.bounding_box()
            stroke = [(board["x"] + board["width"] * x, board["y"] + board["height"] * y)
                      for x, y in ((0.3, 0.25), (0.7, 0.25), (0.62, 0.45), (0.5, 0.62), (0.42, 0.82))]
            page.mouse.move(*stroke[0])
            page.mouse.down()
            for place in stroke[1:]:
                page.mouse.move(*place, steps=8)
            page.mouse.up()
            page.wait_for_timeout(2000)
            page.screenshot(path=ROOT / "docs" / "draw.png")
        finally:
            server.terminate()


def main() -> None:
    with sync_playwright() as driver:
        place = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=place, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 900}, device_scale_factor=1)
        page.goto((ROOT / "reports" / "cnn.html").as_uri())
        page.locator("main img").first.scroll_into_view_if_needed()
        page.screenshot(path=ROOT / "docs" / "page.png")
        page = browser.new_page(viewport={"width": 860, "height": 900}, device_scale_factor=1)
        page.set_content(page_of(report()))
        if script := os.environ.get("MERMAID"):
            page.add_script_tag(path=script)
            page.evaluate("mermaid.registerExternalDiagrams([]).then(() => mermaid.run())")
        page.screenshot(path=ROOT / "docs" / "comment.png")
        draw(browser)
        browser.close()


if __name__ == "__main__":
    main()
