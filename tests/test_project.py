"""project.yaml: everything in it is checked, and each mistake is one sentence."""

import math

import pytest

from nbproof.pipeline import config
from nbproof.notebook import files
from nbproof.notebook.errors import UserError

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


def read(folder, text):
    (folder / "pins.txt").touch()
    (folder / "draw.html").touch()
    (folder / "project.yaml").write_text(text, encoding="utf-8")
    return config.read(folder)


def test_everything_that_it_may_say(tmp_path):
    found = read(tmp_path, GOOD)
    assert found == config.Project(
        tmp_path, "prices", config.Metric("rmse", "min"), "compare", "data.source", "pins.txt",
        config.Tolerance(relative=0.01), True, "draw.html", {"better": "science:better"},
    )


def test_what_may_be_left_out(tmp_path):
    found = read(tmp_path, "name: prices\nmetric: {key: f1, goal: max}\n")
    assert (found.compare, found.data, found.pins, found.pickle) == (None, None, None, False)
    assert found.hook("better") is None
    assert found.tolerance.holds(1.0, 1.0) and not found.tolerance.holds(1.0, 1.0000001)


@pytest.mark.parametrize("before, after, said", [
    ("name: prices", "name: Prices",
     "project.yaml: name must be small letters, digits and _, a letter first, found 'Prices'."),
    ("name: prices", "name: 3", "project.yaml: name must be small letters"),
    ("name: prices\n", "", "project.yaml lacks name; it must hold metric, name."),
    ("name: prices", "nane: prices", "project.yaml has no key 'nane'; it knows compare, data, hooks, metric, name,"),
    ("metric: {key: rmse, goal: min}\n", "", "project.yaml lacks metric"),
    ("metric: {key: rmse, goal: min}", "metric: rmse", "project.yaml: metric must hold goal, key, found 'rmse'."),
    ("goal: min", "goal: less", "project.yaml: metric.goal must be min or max, found 'less'."),
    ("goal: min", "goal: [min]", "project.yaml: metric.goal must be min or max, found ['min']."),
    ("key: rmse, ", "", "project.yaml: metric lacks key"),
    ("key: rmse", "key: ''", "project.yaml: metric.key must be the name of a number in metrics/NAME.json, found ''."),
    ("key: rmse", "key: rmse, unit: m", "project.yaml: metric has no key 'unit'"),
    ("compare: compare", "compare: ../compare", "project.yaml: compare must be a stage's name, found '../compare'."),
    ("compare: compare", "compare:", "project.yaml: compare must be a stage's name, found None."),
    ("data: data.source", "data: source",
     "project.yaml: data must be a parameter such as data.source, found 'source'."),
    ("pins: pins.txt", "pins: other.txt", "project.yaml: pins must be a file of the project, found 'other.txt'."),
    ("relative: 0.01", "relative: -1", "project.yaml: tolerance.relative must be a number of at least 0, found -1."),
    ("relative: 0.01", "relative: true",
     "project.yaml: tolerance.relative must be a number of at least 0, found True."),
    ("relative: 0.01", "relative: .nan", "project.yaml: tolerance.relative must be a number of at least 0, found nan."),
    ("tolerance: {relative: 0.01}", "tolerance: 0.01",
     "project.yaml: tolerance must hold absolute, relative, found 0.01."),
    ("pickle: true", "pickle: 'yes'", "project.yaml: pickle must be true or false, found 'yes'."),
    ("page: draw.html", "page: /etc/passwd", "project.yaml: serve.page must be an HTML file of the project"),
    ("page: draw.html", "page: pins.txt", "project.yaml: serve.page must be an HTML file of the project, found 'pins"),
    ("page: draw.html", "page: 3", "project.yaml: serve.page must be an HTML file of the project, found 3."),
    ("page: draw.html", "port: 3", "project.yaml: serve has no key 'port'; it knows page."),
    ("better: science:better", "judge: science:better",
     "project.yaml: hooks has no key 'judge'; it knows answer, better"),
    ("science:better", "science.better", "project.yaml: hooks.better must be module:function, found 'science.better'."),
    ("science:better", "os; print(1)", "project.yaml: hooks.better must be module:function"),
])
def test_each_mistake_is_one_sentence(tmp_path, before, after, said):
    assert before in GOOD
    with pytest.raises(UserError) as refused:
        read(tmp_path, GOOD.replace(before, after, 1))
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", [
    "", "just words", "[1]", "name: [", "a: 1\na: 2", "x: !!python/object/apply:os.getcwd []"])
def test_what_is_no_mapping(tmp_path, text):
    with pytest.raises(UserError, match=r"^project\.yaml [^\n]+\.$"):
        read(tmp_path, text)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "project.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(UserError, match=r"^project\.yaml cannot be read: 'utf-8' codec"):
        config.read(tmp_path)


@pytest.mark.parametrize("goal, better, worse", [("min", 1.0, 2.0), ("max", 2.0, 1.0)])
def test_the_direction_of_the_metric(goal, better, worse):
    metric = config.Metric("error", goal)
    assert metric.better(better, worse) and not metric.better(worse, better) and not metric.better(better, better)
    assert metric.better(worse, math.nan)
    assert not metric.better(math.nan, worse) and not metric.better(math.nan, math.nan)
    assert sorted([math.nan, worse, better], key=metric.best_first)[:2] == [better, worse]


@pytest.mark.parametrize("new, old, holds", [
    (1.005, 1.0, True), (1.02, 1.0, False), (0.0, 0.0015, True), (math.nan, math.nan, True), (math.nan, 1.0, False),
    (math.inf, 1.0, False),
])
def test_the_tolerance(new, old, holds):
    assert config.Tolerance(absolute=0.002, relative=0.01).holds(new, old) is holds


def test_hooks_come_from_the_notebooks(tmp_path, inside):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "hooked_science.py").write_text("def better(new, old):\n    return len(new)\n")
    inside(tmp_path)
    assert read(tmp_path, GOOD.replace("science:better", "hooked_science:better")).hook("better")([1, 2], []) == 2
    for missing in ("hooked_science:worse", "no_such_module:better"):
        with pytest.raises(UserError, match=rf"^project.yaml: hooks.better is {missing}, which cannot be had: "):
            read(tmp_path, GOOD.replace("science:better", missing)).hook("better")


def test_the_nearest_project_above_counts(tmp_path, inside):
    read(tmp_path, GOOD)
    (tmp_path / "a" / "b").mkdir(parents=True)
    inside(tmp_path / "a" / "b")
    assert files.root() == tmp_path and config.load().name == "prices"
    read(tmp_path / "a", GOOD.replace("prices", "nearer"))
    inside(tmp_path / "a" / "b")
    assert files.root() == tmp_path / "a" and config.load().name == "nearer"


def test_no_project_is_one_sentence(tmp_path, inside):
    inside(tmp_path)
    with pytest.raises(UserError, match=r"^There is no project\.yaml in .* or above: .*nbproof new\.$"):
        files.root()
