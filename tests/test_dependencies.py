"""What a notebook needs is found in its source, and refused where dvc.yaml does not list it."""

import pytest
from projects import notebook

import nbproof
from nbproof.pipeline import deps
from nbproof.notebook.errors import UserError
from nbproof.pipeline.dag import Stage


@pytest.fixture
def place(tmp_path, inside):
    """An empty project with two packages below notebooks/ and a module beside them."""
    inside(tmp_path)
    (tmp_path / "project.yaml").write_text("name: tiny\nmetric: {key: error, goal: min}\n")
    for name, text in {
        "notebooks/tiny/__init__.py": "", "notebooks/tiny/cases.py": "from . import deep\nfrom .sub.leaf import x\n",
        "notebooks/tiny/deep.py": "import json, csv\nfrom ..nothing import y\n",
        "notebooks/tiny/other.py": "import helper\n",
        "notebooks/tiny/sub/__init__.py": "", "notebooks/tiny/sub/leaf.py": "def f():\n    from tiny.sub import late\n",
        "notebooks/tiny/sub/late.py": "from tiny import cases  # a circle\n", "notebooks/helper.py": "",
        "tools/__init__.py": "", "tools/far.py": "", "notebooks/broken.py": "def f(:\n", "notebooks/sub/beside.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def needed(place, *cells, name="notebooks/x.ipynb"):
    notebook(place / name, *cells)
    return deps.needed(place / name) - {name}


CASES = {f"notebooks/tiny/{name}.py" for name in ("__init__", "cases", "deep", "sub/__init__", "sub/leaf", "sub/late")}


@pytest.mark.parametrize("cell, expected", [
    ("import json, numpy, nowhere", set()),
    ("import tiny.cases", CASES),
    ("from tiny import cases", CASES),
    ("from tiny.cases import anything", CASES),
    ("import tiny.cases as c; print(1)", CASES),
    ("from tiny import *", {"notebooks/tiny/__init__.py"}),
    ("if True:\n    from tiny import other",
     {"notebooks/tiny/__init__.py", "notebooks/tiny/other.py", "notebooks/helper.py"}),
    ("%matplotlib inline\n!ls\nimport helper", {"notebooks/helper.py"}),
    ("import helper\nfiles = !ls", {"notebooks/helper.py"}),
    ("import helper\nif True:\n    %matplotlib inline", {"notebooks/helper.py"}),
    ("import helper\nhelper?", {"notebooks/helper.py"}),
    ("import helper\nprint('a %s'\n  % 1)", {"notebooks/helper.py"}),
    ("%%time\nimport helper", {"notebooks/helper.py"}),
    ("%%bash\nimport helper || true", set()),
    ("%%writefile x.py\nimport helper", set()),
    ("%time import helper", {"notebooks/helper.py"}),
    ("import tools.far", {"tools/__init__.py", "tools/far.py"}),
    ("import helper\n1 +", set()),  # not Python: the kernel says so
    ("import broken", {"notebooks/broken.py"}),
    ("# import helper", set()),
    ("'import helper'", set()),
])
def test_imports(place, cell, expected):
    assert needed(place, cell) == expected


def test_a_notebook_in_a_folder_sees_what_lies_beside_it(place):
    assert needed(place, "import beside, helper", name="notebooks/sub/x.ipynb") == {
        "notebooks/sub/beside.py", "notebooks/helper.py"}


@pytest.mark.parametrize("markdown, expected", [
    ("![a map](map.png)", {"notebooks/map.png"}),
    ("![](map.png 'title') and <img alt=x src='../map.png'>", {"notebooks/map.png", "map.png"}),
    ("![](<map.png>)", {"notebooks/map.png"}),
    ("![](none.png) ![](https://example.org/map.png) ![](attachment:map.png) ![](../../../etc/hostname)", set()),
    ("[no picture](map.png)", set()),
    (f"<img src='data:image/png;base64,{'A' * 5000}'>", set()),
])
def test_pictures(place, markdown, expected):
    for name in ("map.png", "notebooks/map.png"):
        (place / name).touch()
    assert needed(place, f"#!{markdown}") == expected
    assert needed(place, f"print('''{markdown}''')") == set()


def test_a_folder_as_a_picture_is_refused_before_anything_runs(place):
    (place / "notebooks" / "maps").mkdir()
    with pytest.raises(UserError, match="^notebooks/x.ipynb shows maps as a picture, and that is a folder: "):
        needed(place, "#!![](maps)")


def test_pins_of_the_project(place):
    (place / "pins.txt").touch()
    (place / "project.yaml").write_text("name: tiny\nmetric: {key: error, goal: min}\npins: pins.txt\n")
    assert needed(place, "1") == {"pins.txt"}


def test_in_its_own_home_the_machinery_is_a_folder(place, monkeypatch):
    monkeypatch.setattr(dependencies, "PACKAGE", place / "nbproof")
    assert needed(place, "1") == {"nbproof/runner"}


def test_nbproof_itself_is_a_pin_elsewhere(place):
    assert needed(place, "from nbproof.notebook import section") == set() and nbproof.__file__


def stage(*deps, sections=()):
    return Stage("train@x", "x", "notebooks/x.ipynb", sections, ("notebooks/x.ipynb", *deps), (), frozenset())


def check(place, *deps, cells=("import helper\nfrom tiny import deep",), **options):
    notebook(place / "notebooks" / "x.ipynb", *cells)
    deps.check(stage(*deps, **options))


def test_what_is_listed_as_a_file_or_in_a_folder_is_enough(place):
    check(place, "notebooks/helper.py", "notebooks/tiny")
    check(place, "notebooks/helper.py", "notebooks/tiny/__init__.py", "notebooks/tiny/deep.py", "data/table")


def test_what_is_not_listed_is_refused_with_the_lines_to_add(place):
    with pytest.raises(UserError) as refused:
        check(place, "notebooks/tiny/deep.py", "notebooks/tin")
    assert str(refused.value) == (
        "dvc.yaml: the stage train@x does not list all that notebooks/x.ipynb needs: add `- notebooks/helper.py`, "
        "`- notebooks/tiny/__init__.py` to its deps, so that an edit there runs it again.")


SECTION = ("P = section('models.x')", "@lr: float = P.lr")


@pytest.mark.parametrize("sections", [("models.x",), ("models",), ("split", "models.x.lr")])
def test_a_section_is_listed(place, sections):
    check(place, cells=SECTION, sections=sections)


@pytest.mark.parametrize("sections", [
    (), ("models.y",), ("models.xy", "split"), ("models.x.rate",)])
def test_a_section_that_is_not_listed_is_refused(place, sections):
    with pytest.raises(UserError, match=r"^dvc.yaml: the stage train@x does not list the section models.x, which "
                                      r"notebooks/x.ipynb reads: add `- models.x` to its params.$"):
        check(place, cells=SECTION, sections=sections)


def test_a_section_without_declared_parameters_counts_as_a_whole(place):
    check(place, cells=("S = section('split')\nprint(S.seed)",), sections=("split",))
    with pytest.raises(UserError, match="does not list the section split"):
        check(place, cells=("S = section('split')\nprint(S.seed)",), sections=("split.seed",))
