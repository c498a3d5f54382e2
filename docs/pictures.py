"""`make pictures`: comment.png and review.png of the README, draw.png of docs/production.md.

The review is a real one: in a clone one parameter is changed and the pipeline runs. Charts of the
comment are drawn where MERMAID names a file mermaid.min.js (of the npm package mermaid), as GitHub
draws them. CHROMIUM names the browser.
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
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
COMMANDS = [sys.executable, "-m"]
BEFORE, AFTER = "    hidden: 128\n", "    hidden: 64\n"  # of the mlp, in params.yaml
STROKE = ((0.3, 0.25), (0.7, 0.25), (0.62, 0.45), (0.5, 0.62), (0.42, 0.82))  # a seven
STYLE = """
body { font: 14px/1.5 -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif;
  color: #1f2328; width: 780px; margin: 20px; border: 1px solid #d1d9e0; border-radius: 6px;
  padding: 4px 16px; }
table { border-collapse: collapse; margin: 12px 0; }
th, td { border: 1px solid #d1d9e0; padding: 6px 13px; }
tr:nth-child(2n) { background: #f6f8fa; }
code { background: #eff1f3; border-radius: 6px; padding: .2em .4em;
  font: 12px ui-monospace, "DejaVu Sans Mono", monospace; }
pre { background: #f6f8fa; padding: 12px; overflow: auto; }
pre code { background: none; padding: 0; }
h3 { margin: 20px 0 8px; } a { color: #0969da; text-decoration: none; }
details { margin: 8px 0; } summary { cursor: pointer; }
"""


@contextlib.contextmanager
def reviewed() -> Iterator[tuple[str, Path]]:
    """Yield the comment, as Markdown, and the page of a review of one changed parameter."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / ROOT.name
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        shutil.copytree(ROOT / ".dvc" / "cache", clone / ".dvc" / "cache")
        subprocess.run([*COMMANDS, "dvc", "checkout", "-q"], cwd=clone, check=True)
        params = clone / "params.yaml"
        text = params.read_text(encoding="utf-8")
        params.write_text(text.replace(BEFORE, AFTER), encoding="utf-8")
        run = [*COMMANDS, "nbproof", "run", "--no-fallback", "--no-register"]
        subprocess.run(run, cwd=clone, check=True)
        report = subprocess.run([*COMMANDS, "nbproof", "report", "--base", "HEAD"], cwd=clone,
                                check=True, capture_output=True)
        yield report.stdout.decode(), clone / "reports" / "review.html"


def as_on_github(markdown: str) -> str:
    """Return the comment as an HTML page that looks like GitHub's."""
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    charts = re.compile('<pre><code class="language-mermaid">(.*?)</code></pre>', re.DOTALL)
    body = charts.sub(r'<pre class="mermaid">\1</pre>', body)
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><body>{body}"


def photograph_review(browser: Browser) -> None:
    """Write comment.png and review.png."""
    with reviewed() as (markdown, page_path):
        page = browser.new_page(viewport={"width": 860, "height": 900})
        page.set_content(as_on_github(markdown))
        if script := os.environ.get("MERMAID"):
            page.add_script_tag(path=script)
            page.evaluate("mermaid.registerExternalDiagrams([]).then(() => mermaid.run())")
        page.screenshot(path=DOCS / "comment.png")
        page = browser.new_page(viewport={"width": 1180, "height": 1235})
        page.goto(page_path.as_uri())
        page.screenshot(path=DOCS / "review.png")


def photograph_drawing(browser: Browser) -> None:
    """Write draw.png: a seven on the page of `make serve`, with the results in this folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*COMMANDS, "nbproof", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT) as server:
        try:
            page = browser.new_page(viewport={"width": 1180, "height": 760})
            for _ in range(60):
                with contextlib.suppress(Exception):  # it is not up yet
                    page.goto(f"http://127.0.0.1:{port}/")
                    break
                time.sleep(1)
            board = page.locator("canvas").first.bounding_box()
            points = [(board["x"] + board["width"] * x, board["y"] + board["height"] * y)
                      for x, y in STROKE]
            page.mouse.move(*points[0])
            page.mouse.down()
            for point in points[1:]:
                page.mouse.move(*point, steps=8)
            page.mouse.up()
            page.wait_for_timeout(2000)
            page.screenshot(path=DOCS / "draw.png")
        finally:
            server.terminate()


def main() -> None:
    with sync_playwright() as driver:
        program = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        photograph_drawing(browser)
        photograph_review(browser)
        browser.close()


if __name__ == "__main__":
    main()
