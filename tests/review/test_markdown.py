"""Text of others in Markdown: it shows, and does nothing."""

import re

import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

from nbproof.review import markdown

from .tiny import HOSTILE, assert_harmless


@pytest.mark.parametrize("given", [HOSTILE, "`", "``", "|", "\\", "\\|", "a`b``c", "\n|\n---\n", "",
                                   " ", "\u2028", "````js\n````"])
def test_code_stays_code(given):
    row = f"| a | b |\n| -- | -- |\n| {markdown.code(given)} | x |\n"
    page = BeautifulSoup(MarkdownIt("commonmark").enable("table").render(row), "html.parser")
    assert [len(row.find_all("td")) for row in page.find_all("tr")] == [0, 2]
    assert [child.name for child in page.find("td").contents] == ["code"]
    page = BeautifulSoup(MarkdownIt("commonmark").render(markdown.fence(given)), "html.parser")
    assert [child.name for child in page.contents if child.name] == ["pre"]
    assert_harmless(f"A word: {markdown.prose(given)}")


def test_mermaid_label_is_one_string():
    for given in (HOSTILE + '"\n    line [1]', "", "§§"):
        assert re.fullmatch(r'"[\w .,:+-]+"', markdown.label(given))


@pytest.mark.parametrize(("url", "is_link"), [
    ("https://ci.example/a/1#cnn", True), ("https://ci.example/review.html#export%40cnn", True),
    ("http://ci.example/", False), ("https://u@evil.test/", False), ("javascript:alert(1)", False),
    ("https://ci.example/a) ![x](https://evil.test/x.png", False), (["x"], False), ("", False)])
def test_link(url, is_link):
    assert (markdown.link("open", url) is not None) == is_link
