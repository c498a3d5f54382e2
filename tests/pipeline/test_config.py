"""project.yaml: everything in it is checked, and each mistake is one sentence."""

import math

import pytest

from nbproof.notebook.errors import UserError
from nbproof.pipeline import config

GOOD = """\
name: prices
metric: {key: rmse, goal: min}
compare: compare
data: data.source
pins: pins.txt
tolerance: {relative: 0.01}
pickle: true
serve: {page: draw.html}
hooks: {better: science:better}
"""


def read(folder, text=GOOD):
    (folder / "pins.txt").touch()
    (folder / "draw.html").touch()
    (folder / "project.yaml").write_text(text, encoding="utf-8")
    return config.read(folder)


def test_all_that_it_may_say_and_what_may_be_left_out(tmp_path):
    assert read(tmp_path) == config.Project(
        tmp_path, "prices", config.Metric("rmse", "min"), "compare", "data.source", "pins.txt",
        config.Tolerance(relative=0.01), True, page="draw.html",
        hooks={"better": "science:better"})
    found = read(tmp_path, "name: prices\nmetric: {key: f1, goal: max}\nhooks: {}\n")
    assert found == config.Project(tmp_path, "prices", config.Metric("f1", "max"))
    assert found.hook("better") is None and found.compared() == {}


@pytest.mark.parametrize("before, after, sentence", [
    ("name: prices", "name: Prices",
     ": name must be small letters, digits and _, a letter first, found 'Prices'."),
    ("name: prices\n", "", ": name must be small letters, digits and _, a letter first, found N"),
    ("name: prices", "nane: prices", " must hold "),
    ("{key: rmse, goal: min}", "rmse", ": metric must hold goal, key, found rmse."),
    ("key: rmse, ", "", ": metric.key must be the name of a number in metrics/NAME.json, found N"),
    ("goal: min", "goal: less", ": metric.goal must be min or max, found 'less'."),
    ("pins: pins.txt", "pins: no.txt", ": pins must be a file of the project, found 'no.txt'."),
    ("pins: pins.txt", "pins: ../copy/pins.txt", ": pins must be a file of the project, found '.."),
    ("relative: 0.01", "relative: .nan", ": tolerance.relative must be a number of at least 0, "),
    ("pickle: true", "pickle: 'yes'", ": pickle must be true or false, found 'yes'."),
    ("page: draw.html", "page: /etc/a.html", ": serve.page must be an HTML file of the project, "),
    ("page: draw.html", "port: 3", ": serve must hold drift, harvest, page, found port."),
    ("science:better", "science.better", ": hooks.better must be module:function, found 'science."),
])
def test_each_mistake_is_one_sentence(tmp_path, before, after, sentence):
    assert before in GOOD
    with pytest.raises(UserError) as refused:
        read(tmp_path, GOOD.replace(before, after, 1))
    assert str(refused.value).startswith(f"project.yaml{sentence}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [
    b"", b"just words", b"[1]", b"[]", b"name: [", b"a: 1\na: 2", b"name: \xff\n",
    b"x: !!python/object/apply:os.getcwd []"])
def test_what_is_no_mapping(tmp_path, content):
    (tmp_path / "project.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"^project\.yaml [^\n]+\.$"):
        config.read(tmp_path)


@pytest.mark.parametrize("new, old, lower, higher, same", [
    (1.005, 1.0, False, True, True), (1.0, 1.02, True, False, False), (1, 1, False, False, True),
    (0.0, 0.0015, True, False, True), (math.inf, 1.0, False, True, False),
    (math.nan, math.nan, False, False, True), (math.nan, 1.0, False, False, False),
    (1.0, math.nan, True, True, False)])
def test_which_number_is_better_and_which_are_the_same(new, old, lower, higher, same):
    assert config.Metric("error", "min").better(new, old) is lower
    assert config.Metric("error", "max").better(new, old) is higher
    assert config.Tolerance(absolute=0.002, relative=0.01).holds(new, old) is same


def test_hooks_come_from_the_notebooks(tmp_path, inside):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "hooked_science.py").write_text(
        "def better(new, old):\n    return len(new)\n")
    inside(tmp_path)
    project = read(tmp_path, GOOD.replace("science:better", "hooked_science:better"))
    assert project.hook("better")([1, 2], []) == 2
    for missing in ("hooked_science:worse", "no_such_module:better"):
        with pytest.raises(UserError, match=rf"^project.yaml: hooks.better is {missing}, which "):
            read(tmp_path, GOOD.replace("science:better", missing)).hook("better")


METRIC = " must hold a number as rmse, the metric that project.yaml names, found "


@pytest.mark.parametrize("text, problem", [
    ('{"rmse": 0.5, "by_class": {"a": 1}, "note": "text"}', ""), ('{"rmse": NaN}', ""),
    ('{"rmse": "0.5"}', f"{METRIC}'0.5'."), ('{"rmse": true}', f"{METRIC}True."),
    ('{"val": {"rmse": 1}}', f"{METRIC}None."),
    ("[0.5]", " must be a JSON object of names and numbers, found '[0.5]'."),
    ("{'rmse': 1}", " must be a JSON object of names and numbers, found \"{'rmse': 1}\".")])
def test_metrics_without_the_metric(tmp_path, inside, text, problem):
    """A model with such metrics was missing from every table, without a word."""
    inside(tmp_path)
    read(tmp_path)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "m.json").write_text(text)
    assert config.check_metrics("m") == (problem and f"because metrics/m.json{problem}")
