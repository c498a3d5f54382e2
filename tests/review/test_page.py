"""The page of a review: before and after, curves over each other, then every page."""

from pathlib import Path

import nbformat
import pytest
from browser import chromium, cut_off

from nbproof.review.notebook_diff import compare
from nbproof.runner import cells

from .tiny import FIGURES, HOSTILE

WIDE = "\n".join(f"|{cell * 6}" for cell in ("the long name of a column |", "--|", "0.123456789|"))


@pytest.fixture
def changed(tiny):
    tiny.said = {"oak": f"It learns.\n{HOSTILE}\n\n{WIDE}"}
    tiny.begin().models["oak"]["rate"] = tiny.models["elm"]["rate"] = 0.5
    tiny.said, tiny.figure = {"oak": f"It learns a lot.\n\n{WIDE}"}, {"oak": "blue"}
    tiny.scores["oak"] = [0.97, 0.985, 0.995]
    tiny.run("oak", "elm", "compare")
    return tiny.review(links={"main": "https://ci.example"})


def test_every_changed_notebook_before_and_after(changed):
    comment, page = changed
    oak, elm = (page.find(id=name).parent for name in ("oak", "elm"))
    assert [title.get_text() for title in oak.find_all("h3")] == [
        "Cell 2, Training", "Cell 4, How good is it?"]
    assert {mark.get_text() for mark in oak.find_all("ins")} & {"lot.", "a lot", "lot"}
    addresses = [image["src"].partition(",")[2] for image in oak.select(".sides img")]
    assert addresses == [FIGURES["grey"], FIGURES["blue"]]
    assert {image["alt"] for image in oak.select("img")} == {"Figure: How good is it?"}
    assert "nothing that a reader sees" in elm.get_text()
    assert not page.find_all(["script", "iframe", "link"])
    links = [link["href"] for link in oak.find_all("a")][:2]
    assert links == ["#page-oak", "https://ci.example/oak.html"] and page.find(id="page-oak")
    assert "! Figure: How good is it?" in comment
    # the verdict above all, and curves over each other
    first = comment.splitlines()[0].replace("`", "").replace("**", "")
    verdict = page.select_one(".verdict p").get_text()
    assert first.startswith(verdict) and "oak is better: 0.9900 → 0.9950" in verdict
    lines = oak.select(".curve polyline")
    assert [line["class"] for line in lines] == [["base"], ["branch"]]
    assert [len(line["points"].split()) for line in lines] == [3, 3]
    assert lines[0]["points"].split()[0] == lines[1]["points"].split()[0]  # both begin at 0.97
    # every page has its place, and no id is there twice
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert {"oak", "page-oak", "elm", "compare"} <= {*ids}
    headings = [name for name in ids if not name.startswith("cell-id=")]
    assert len(headings) == len({*headings})
    for link in page.select('a[href^="#"]'):
        assert page.find(id=link["href"][1:]), link


@pytest.mark.xdist_group("page in a browser")
def test_on_a_phone_nothing_is_off_the_screen(changed, tmp_path):
    from playwright.sync_api import sync_playwright

    file = tmp_path / "review.html"
    file.write_text(str(changed[1]), encoding="utf-8")
    with sync_playwright() as playwright:
        tab = chromium(playwright).new_page(viewport={"width": 390, "height": 800})
        tab.goto(file.as_uri())
        tab.check("#all-code")
        assert cut_off(tab) == []


def differences(old: list, new: list):
    """Return the cells that differ between two notebooks of (source, Markdown that it shows)."""
    notebooks = []
    for side in (old, new):
        made = nbformat.v4.new_notebook()
        for number, (source, text) in enumerate(side):
            shown = nbformat.v4.new_output("display_data", {"text/markdown": text})
            made.cells.append(nbformat.v4.new_code_cell(source, outputs=[shown], id=f"c{number}"))
        notebooks.append(made)
    pages = [cells.body(made, Path()) for made in notebooks]
    return compare(*notebooks, *pages)


TABLE = "| model | score |\n|:--|--:|\n| **mlp** | {} |\n"


def test_numbers_in_a_table_are_marked_where_they_stand():
    cell, = differences([("a", TABLE.format("0.9890"))], [("a", TABLE.format("0.9848"))])
    assert "**" not in cell.new
    assert "<del>0.9890</del></td>" in cell.old and "<ins>0.9848</ins></td>" in cell.new
    assert [side.count(mark) for side, mark in ((cell.old, "<del>"), (cell.new, "<ins>"))] == [1, 1]
    assert cell.hunk[-2:] == ("-mlp │ 0.9890", "+mlp │ 0.9848")


def test_cells_that_came_and_went():
    before, after = [("one", "1"), ("two", "2")], [("one", "1"), ("two", "2"), ("three", "3")]
    assert [cell.title for cell in differences(before, after)] == ["Cell 3"]
    assert [cell.title for cell in differences(after, before)] == ["Removed cell"]
    assert differences(before, before) == []


def test_prose_that_changed_is_on_the_page_alone():
    sides = [nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text, id="m")])
             for text in ("# T\n\nold words", "# T\n\nnew words")]
    cell, = compare(*sides, *(cells.body(side, Path()) for side in sides))
    assert "<del>old</del> words" in cell.old and "<ins>new</ins> words" in cell.new
    assert cell.hunk == ()


def test_long_outputs_take_no_minutes():
    words = " ".join(map(str, range(20_000)))
    cell, = differences([("a", words)], [("a", words.replace("77 ", "x "))])
    assert cell.new and cell.hunk
