"""A report that untrusted code wrote: readable, and unable to do anything."""

import re
import time

import pytest

from nbproof.review.sanitise import sanitised

RUN = "https://github.com/owner/name/actions/runs/42"
CHART = ('```mermaid\n%%{init: {"themeVariables": {"xyChart": {"plotColors": "#8c959f"}}}}%%\n'
         'xychart-beta\n    title "cnn"\n    x-axis "epoch" 1 --> 10\n'
         '    y-axis "validation accuracy" 0.9 --> 1.0\n    line [0.91, 0.95]\n```')
FOLD = ("<details>\n<summary><code>cnn</code> &lt;3&gt; &amp;</summary>\n\n"
        "```diff\n@@ cell 7, Keep @@\n- 0.1\n+ 0.2\n```\n</details>")


@pytest.mark.parametrize("text", [
    "champion: `cnn` 0.9931 → 0.9940; 3 of 5 notebooks ran again; all tests passed.",
    "### A heading\n\n| a | b |\n|:---|---:|\n| `x` | **1** |", f"[open](<{RUN}/artifacts/7#cnn>)",
    CHART, FOLD])
def test_what_a_report_needs_stays(text):
    assert sanitised(text, RUN) == text


@pytest.mark.parametrize("hostile", [
    "@octocat", "@@octocat", "\\@octocat", "&#64;octocat", "&commat;octocat", "&#x40;octocat",
    "owner/name#12", "\\#12", "&#35;12", "GH-12", "![x](https://a.example/i.png)",
    '![](https://cml.dev/watermark.png#ab "CML watermark pipeline-report")',
    "[x](https://a.example)", "[x](//a.example)", "[x][y]\n\n[y]: https://a.example",
    "https://a.example", "h&#116;tps&#58;//a.example", "www.a.example", "<https://a.example>",
    "mailto:a@b.example", f"[x]({RUN}/../../../../settings)", f"[x]({RUN}/%2e%2E/.%2e/settings)",
    f"[x]({RUN}0/artifacts/1)", "<img src=x onerror=y>", "<a href=x>y</a>",
    "<!-- nbproof: report -->", "<details open onclick=x>", "```geojson\n{}\n```",
    "- ```mermaid\n  graph TD\n  ```", "~~~stl\nsolid\n~~~", "~~~ `stl`\nsolid\n~~~",
    '```mermaid\nxychart-beta\n    line [1]\n    click A href "https://a.example"\n```',
    '```mermaid\ngraph TD; click A "https://a.example"\n```', "\u202eevil", "\u200bx", "x\x00y"])
def test_hostile_text_is_broken(hostile):
    safe = sanitised(hostile, RUN)
    assert safe != hostile
    for pattern in (r"@\w", r"#\d", r"GH-\d", r"https?://", r"www\.", "mailto:", r"!\[",
                    r"\][(\[:]", r"<(?!/?(details|summary|code)>|br>)[\w/!]", "&commat;",
                    r"&#?x?(64|40|35|58|116);", r"```(geojson|mermaid)", "~~~ *`?stl", "\u202e",
                    "\x00"):
        assert not re.search(pattern, safe), (pattern, safe)


@pytest.mark.parametrize("text", [
    "```" + "a" * 1_000_000 + "`", "`" * 1_000_000, "```mermaid\nxychart\n line a\n" * 30_000,
    "```mermaid\nxychart\n" + " line a\n" * 100_000, "](https://" * 100_000, "@" * 1_000_000,
    "#" + "\\" * 1_000_000, "&" + "a" * 1_000_000, "![" * 500_000, "<details>" * 100_000])
def test_a_million_characters_take_seconds(text):
    """A pattern that takes the square of the length needed an hour for the first of these."""
    start = time.process_time()
    sanitised(text, RUN)
    assert time.process_time() - start < 10
