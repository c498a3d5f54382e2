"""`make pictures`: the two pictures of the README, docs/comment.png and docs/page.png, from the results in this folder.

The comment is a real report: in a clone one parameter is changed and the pipeline runs. Charts are drawn where MERMAID
names a file mermaid.min.js (from the npm package mermaid), as GitHub draws them. CHROMIUM names the browser.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
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
        subprocess.run([*run, "nbproof", "run", "--no-remedy"], cwd=clone, check=True)
        done = subprocess.run([*run, "nbproof", "report", "--base", "HEAD"], cwd=clone, check=True, capture_output=True)
        return done.stdout.decode()


def page_of(markdown: str) -> str:
    """A report as GitHub shows it, as far as its own looks matter."""
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    charts = re.compile('<pre><code class="language-mermaid">(.*?)</code></pre>', re.DOTALL)
    body = charts.sub(r'<pre class="mermaid">\1</pre>', body)
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><body>{body}"


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
        browser.close()


if __name__ == "__main__":
    main()
