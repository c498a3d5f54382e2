"""The index of the pages: results, pictures and states at a glance, and where the links of each page lead."""

import json
import re

import pytest
from bs4 import BeautifulSoup
from projects import command, edit_params, nbproof, results

from nbproof.pipeline import index as pages
from nbproof.pipeline import config
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.runner import determinism


def index(folder):
    return BeautifulSoup((folder / "reports" / "index.html").read_text(encoding="utf-8"), "html.parser")


def leads_to(folder, link: str) -> str:
    """The page that a link of a page reaches in the end, from reports/."""
    text = (folder / "reports" / link).read_text(encoding="utf-8")
    return re.search(r"url=\.\./([\w-]+)\.html", text)[1]


def test_it_holds_results_pages_and_what_varies(finished_once, inside):
    folder = inside(finished_once[0])
    assert root() == folder
    page = index(folder)
    cells = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in page.select("table tr")]
    assert cells == [["model", "error"], ["far", "0.5"], ["near", "0.75"]]
    cards = [(card.a["href"], card.select("p")[-1].get_text()) for card in page.select(".cards li")]
    assert cards == [(f"{name}.html", "every cell ran") for name in ("data", "near", "far", "compare")]
    facts = {each.get_text(): each.find_next("dd").get_text() for each in page.find_all("dt")}
    assert list(facts) == ["commit", "date", "versions", "arithmetic"] and "Python 3." in facts["versions"]
    assert all(f"{name}={value}" in facts["arithmetic"] for name, value in determinism.SETTINGS.items())


def test_each_page_leads_to_its_neighbours(finished_once):
    folder, order = finished_once[0], ["index", "data", "near", "far", "compare", "index"]
    for before, name, after in zip(order, order[1:], order[2:]):
        page = BeautifulSoup((folder / "reports" / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        links = {each.get_text(): each["href"] for each in page.find("nav", {"aria-label": "Pages"}).find_all("a")}
        assert leads_to(folder, links["← previous"]) == before and leads_to(folder, links["next →"]) == after
        assert links["all pages"] == "index.html"


def test_a_page_that_asks_a_model_stands_apart(finished, inside):
    (finished / "reports" / "try-near.html").write_text("<title>Try near</title>")
    inside(finished)
    pages.write({}, set())
    page = index(finished)
    assert page.select_one("p > a[href='try-near.html']").get_text() == "near"
    assert "try-near.html" not in [card.a["href"] for card in page.select(".cards li")]


def test_a_page_that_no_notebook_became_is_a_link(finished, inside):
    (finished / "reports" / "curve.html").write_bytes("<p>ein Bild \xfc".encode("latin-1"))  # without a title
    inside(finished)
    pages.write({}, set())
    card = index(finished).select_one(".cards li:has(a[href='curve.html'])")
    assert card.get_text() == "curve"


def test_metrics_that_are_no_object_are_refused_with_their_file(finished, inside):
    inside(finished)
    for text, told in (("[0.5]", "must be a JSON object"), ("{'error': 0.5}", "is not JSON")):
        (finished / "metrics" / "compare.json").write_text(text)
        with pytest.raises(UserError, match=f"^metrics/compare.json {told}"):
            config.load().compared()


def test_it_says_what_failed_and_leaves_git_and_results_alone(finished):
    before = results(finished)
    edit_params(finished, lambda content: content["models"]["near"].update(rounds=9))
    (finished / "notebooks" / "near.ipynb").write_text(
        (finished / "notebooks" / "near.ipynb").read_text().replace("curve = []", "curve = 1 / 0"))
    assert nbproof(finished, "run").returncode == 1
    states = {card.a["href"]: card.select("p")[-1].get_text() for card in index(finished).select(".cards li")}
    assert states["near.html"].startswith("Failed at cell") and states["far.html"] == "every cell ran"
    assert states["compare.html"] == "not run: this is an earlier state"
    (finished / "reports" / "index.html").unlink()
    command(finished, "git", "checkout", "-q", ".")
    back = nbproof(finished, "run")
    assert back.returncode == 0 and "The result: reports/index.html\n" in back.stdout, back.stdout
    assert results(finished) == before and json.loads((finished / "metrics" / "compare.json").read_text())
    assert command(finished, "git", "status", "--short").stdout == "" and index(finished).select(".cards li")
