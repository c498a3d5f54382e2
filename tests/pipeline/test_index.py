"""Pages where they are missing or not current, and an index with all results."""

import json
from dataclasses import replace
from unittest import mock

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from projects import commit

from nbproof.pipeline import config, dag, index
from nbproof.runner import determinism, html

PICTURE = "iVBORw0KGgo="


def executed(folder, name: str, **metadata) -> str:
    """Write reports/NAME.ipynb as a stage does; return the stamp of its page."""
    figure = new_output("display_data", data={"image/png": PICTURE})
    told = new_output("display_data", data={"text/markdown": "It is [good](a.html), *really*."})
    cells = [new_markdown_cell(f"# The *{name}*\n\n> is it `good`,\n> or [not](a.html)?\n\ntext"),
             new_code_cell("figure", outputs=[figure]), new_markdown_cell("## What we learned"),
             new_code_cell("told", outputs=[told])]
    path = folder / "reports" / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return html.stamp(path)


@pytest.fixture
def found(tmp_path, inside) -> dict[str, dag.Stage]:
    """The stages of a finished project, in which this process works."""
    inside(tmp_path)
    (tmp_path / "project.yaml").write_text(
        "name: tiny\nmetric: {key: error, goal: min}\ncompare: compare\n")
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    for folder in ("reports", "metrics"):
        (tmp_path / folder).mkdir()
    stages = {}
    for name, numbers in (("near", {"error": 0.75, "steps": 2000}), ("far", {"error": 0.5}),
                          ("compare", {"champion": "far", "error": 0.5, "test_error": 0.25})):
        (tmp_path / f"metrics/{name}.json").write_text(json.dumps(numbers))
        outputs = (f"metrics/{name}.json",
                   f"models/{name}" if name != "compare" else "metrics/all.csv")
        stages[f"train@{name}"] = dag.Stage(f"train@{name}", name, f"notebooks/{name}.ipynb", (),
                                            (), outputs, frozenset())
        executed(tmp_path, name)
    return stages


def page(folder) -> BeautifulSoup:
    text = (folder / "reports" / "index.html").read_text(encoding="utf-8")
    return BeautifulSoup(text, "html.parser")


def written(monkeypatch, found) -> list[str]:
    """The names of the pages that are written now."""
    with monkeypatch.context() as patched:
        patched.setattr(html, "write", mock.Mock(side_effect=html.write))
        index.write_pages(found)
        return [call.args[0] for call in html.write.call_args_list]


def test_only_pages_that_are_not_current_are_written(found, tmp_path, monkeypatch):
    assert written(monkeypatch, found) == ["near", "far", "compare"], "none is there yet"
    assert written(monkeypatch, found) == []
    (tmp_path / "reports" / "far.html").unlink()
    assert written(monkeypatch, found) == ["far"]
    executed(tmp_path, "near", failure={"cell": 2, "error": "ValueError", "reason": "no"})
    assert written(monkeypatch, found) == ["near"], "also of a failed run"
    monkeypatch.setattr(html, "version", lambda: "other templates")
    (tmp_path / "reports" / "near.ipynb").unlink()
    assert written(monkeypatch, found) == ["far", "compare"], "of what is not there, no page"


def test_the_index_has_results_pages_and_what_varies(found, tmp_path, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    commit(tmp_path, "init", "-q")
    index.write(found)
    body = page(tmp_path)
    rows = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in body("tr")]
    assert rows == [["model", "error", "steps"], ["near", "0.7500", "2,000"],
                    ["far", "0.5000", ""]], "in the order of dvc.yaml"
    assert body.select_one("tr.best a")["href"] == "far.html"
    assert body.main.p.get_text() == "It is good, really.", "the comparison's own conclusion"
    cards = body.select(".cards li")
    assert [card.a["href"] for card in cards] == ["near.html", "far.html", "compare.html"]
    assert cards[0].h3.get_text() == "The near" and cards[0].img["src"].endswith(PICTURE)
    assert [text.get_text() for text in cards[0]("p")] == [
        "is it good,\n or not?", "error 0.7500", "It is good, really."]
    facts = {term.get_text(): term.find_next("dd").get_text() for term in body("dt")}
    assert list(facts) == ["commit", "date", "versions", "computed by"]
    assert len(facts["commit"]) == 40 and "Python 3." in facts["versions"]
    assert determinism.machine() in facts["computed by"]
    (tmp_path / "project.yaml").open("a").write("# edited\n")
    index.write(found)
    assert "not committed" in page(tmp_path).dd.get_text() and index.is_current()
    (tmp_path / "dvc.lock").write_text("stages: {near: {}}\n")
    assert not index.is_current()


def test_an_index_with_a_failure_says_so_and_is_written_again(found, tmp_path):
    executed(tmp_path, "near", failure={"cell": 2, "error": "ValueError", "reason": "no"})
    index.write(found, {"train@near": "near: failed at cell 2"}, ["train@compare"])
    body = page(tmp_path)
    assert body.select_one(".failed").get_text() == (
        "This run failed at cell 2 of near. What follows is from before this run.")
    states = {card.a["href"]: card("p")[-1].get_text() for card in body.select(".cards li")}
    assert states == {"near.html": "Failed at cell 2.", "far.html": "It is good, really.",
                      "compare.html": "Not run: this is from before."}
    assert not index.is_current(), "also where dvc.lock stays as it was"


def test_a_notebook_for_many_values_is_a_table_not_cards(found, tmp_path):
    for value in ("0.1", "1", "2"):
        name = f"churn@{value}"
        (tmp_path / f"metrics/{name}.json").write_text(f'{{"error": {value}}}')
        found[name] = dag.Stage(name, name, "notebooks/churn.ipynb", (), (), (), frozenset(),
                                {"c": value, "empty": ""}, (f"metrics/{name}.json",))
        executed(tmp_path, name, failure={"cell": 2} if value == "1" else None)
    index.write(found, not_run=["churn@2"])
    rows = [[cell.get_text() for cell in row(["th", "td"])]
            for row in page(tmp_path).select("h3 + table tr")]
    assert rows == [["stage", "c", "empty", "error"], ["churn@0.1", "0.1", "", "0.1000"],
                    ["churn@1", "1", "", "failed at cell 2"], ["churn@2", "2", "", "not run"]]
    links = page(tmp_path).select("a[href^=churn]")
    assert len(links) == 3 and not page(tmp_path).select(".cards a[href^=churn]")


def test_the_table_for_a_terminal(found, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.delenv("CI", raising=False)
        assert index.table(found) == (
            "       error  steps\nnear  0.7500  2,000\nfar   0.5000       \n"
            "The champion is far, test error 0.2500.")
        patched.setenv("CI", "true")
        assert index.table(found).endswith("The champion is far."), "test data: not in a review"
    for path in (tmp_path / "metrics").iterdir():
        path.unlink()
    assert index.table(found) == ""


def test_a_project_without_a_metric(found, tmp_path):
    """All numbers of the files that DVC knows as metrics; no card and no row counts more."""
    (tmp_path / "project.yaml").write_text("name: tiny\n")
    config.load.cache_clear()
    (tmp_path / "metrics" / "far.json").write_text("[1, 2]")
    (tmp_path / "metrics" / "near.json").write_text('{"a": {"b": 2}, "text": "x"}')
    stages = {name: replace(stage, metrics=stage.outputs[:1]) for name, stage in found.items()}
    assert index.table(stages).splitlines()[1].split() == ["near", "2"]
    index.write(stages)
    assert not page(tmp_path).select("tr.best, .metric")
    (tmp_path / "metrics" / "near.json").write_text('{"text": "x"}')
    (tmp_path / "metrics" / "compare.json").unlink()
    index.write(stages)
    assert index.table(stages) == ""
