"""One definition of each parameter, and one clear sentence for each mistake."""

import papermill
import pytest
from projects import ROOT, notebook

from nbproof.notebook import params as values
from nbproof.notebook.errors import UserError
from nbproof.runner import schema

CELL = """\
epochs: int = P.epochs  # [1, 100] passes
lr: float = P.lr  # (0, 1] step
device: str = P.device  # {auto, cpu} where
loud: bool = P.loud  # say more
sizes: list[int] = P.sizes  # [1, 9] sizes
limit: float | None = P.limit  # [0, 1) at most
tags: list[str] | None = P.tags  # {a, b} marks
seed: int = S.seed  # of all"""
GOOD = {"epochs": "3", "lr": "0.1", "device": "cpu", "loud": "true", "sizes": "[1, 9]", "limit": "null", "tags": "[a]"}
NAMES = "device, epochs, limit, loud, lr, sizes, tags"


@pytest.fixture
def checked(tmp_path, inside):
    """The values of the notebook `x`, whose parameters cell and params.yaml are as asked."""
    inside(tmp_path)
    (tmp_path / "project.yaml").touch()

    def check(*cells: str, text: str = "", **changes: str | None) -> dict:
        path = tmp_path / "notebooks" / "x.ipynb"
        notebook(path, 'P = section("models.x")\nS = section(\'split\')', *(cells or (f"@{CELL}",)))
        given = "".join(f"    {name}: {value}\n" for name, value in (GOOD | changes).items() if value is not None)
        whole = text or f"split: {{seed: 1}}\nmodels:\n  x:\n{given}"
        (tmp_path / "params.yaml").write_text(whole, encoding="utf-8")
        schema.check_known([path])
        return schema.values_of(path)

    return check


def test_typed_values(checked):
    assert checked(lr="1e-3") == {
        "epochs": 3, "lr": 0.001, "device": "cpu", "loud": True, "sizes": [1, 9], "limit": None, "tags": ["a"],
        "seed": 1,
    }
    found = checked(lr="1", limit="0", sizes="[]", tags="null")
    assert [type(found[name]) for name in ("lr", "limit")] == [float, float]
    assert (found["sizes"], found["tags"]) == ([], None)
    found = checked("@rates: list[float] = P.rates  # (0, 1] rates", text="models: {x: {rates: [1, 0.5]}}")
    assert found == {"rates": [1.0, 0.5]} and type(found["rates"][0]) is float


def test_what_a_parameter_knows_of_itself(checked, tmp_path):
    checked()
    found = schema.declared(tmp_path / "notebooks" / "x.ipynb")
    assert (found["lr"].key, found["seed"].key) == ("models.x.lr", "split.seed")
    assert (found["sizes"].type, found["sizes"].allowed, found["sizes"].meaning) == ("list[int]", "[1, 9]", "sizes")
    assert found["limit"].expected == "float | None, in [0, 1)" and found["loud"].expected == "bool"


def test_a_notebook_without_parameters(checked):
    assert checked("print(1)") == {}


@pytest.mark.parametrize("changes, key, expected, found", [
    ({"epochs": "0"}, "epochs", "int, in [1, 100] (passes)", "0"),
    ({"epochs": "101"}, "epochs", "int, in [1, 100] (passes)", "101"),
    ({"epochs": "1.5"}, "epochs", "int, in [1, 100] (passes)", "1.5"),
    ({"epochs": "true"}, "epochs", "int, in [1, 100] (passes)", "True"),
    ({"epochs": "null"}, "epochs", "int, in [1, 100] (passes)", "None"),
    ({"lr": "fast"}, "lr", "float, in (0, 1] (step)", "'fast'"),
    ({"lr": "0"}, "lr", "float, in (0, 1] (step)", "0"),
    ({"lr": "false"}, "lr", "float, in (0, 1] (step)", "False"),
    ({"lr": ".nan"}, "lr", "float, in (0, 1] (step)", "nan"),
    ({"lr": ".inf"}, "lr", "float, in (0, 1] (step)", "inf"),
    ({"lr": "[0.1]"}, "lr", "float, in (0, 1] (step)", "[0.1]"),
    ({"device": "gpu"}, "device", "str, in {auto, cpu} (where)", "'gpu'"),
    ({"device": "1"}, "device", "str, in {auto, cpu} (where)", "1"),
    ({"loud": "1"}, "loud", "bool (say more)", "1"),
    ({"loud": "null"}, "loud", "bool (say more)", "None"),
    ({"sizes": "3"}, "sizes", "list[int], each in [1, 9] (sizes)", "3"),
    ({"sizes": "[3, 10]"}, "sizes", "list[int], each in [1, 9] (sizes)", "[3, 10]"),
    ({"sizes": "[3, 1.5]"}, "sizes", "list[int], each in [1, 9] (sizes)", "[3, 1.5]"),
    ({"sizes": "[true]"}, "sizes", "list[int], each in [1, 9] (sizes)", "[True]"),
    ({"sizes": "[null]"}, "sizes", "list[int], each in [1, 9] (sizes)", "[None]"),
    ({"sizes": "null"}, "sizes", "list[int], each in [1, 9] (sizes)", "None"),
    ({"sizes": "{1: 2}"}, "sizes", "list[int], each in [1, 9] (sizes)", "{1: 2}"),
    ({"limit": "1"}, "limit", "float | None, in [0, 1) (at most)", "1"),
    ({"limit": "none"}, "limit", "float | None, in [0, 1) (at most)", "'none'"),
    ({"tags": "[c]"}, "tags", "list[str] | None, each in {a, b} (marks)", "['c']"),
    ({"tags": "a"}, "tags", "list[str] | None, each in {a, b} (marks)", "'a'"),
])
def test_one_sentence_for_a_bad_value(checked, changes, key, expected, found):
    with pytest.raises(UserError) as refused:
        checked(**changes)
    assert str(refused.value) == f"params.yaml: models.x.{key} must be {expected}, found {found}."


CALLED = ("the range of `epochs: int = P.epochs` must be two numbers such as [1, 100] or (0, 1], for an int or "
          "a float; found")


@pytest.mark.parametrize("options, said", [
    ({"warmup": "3"}, f"params.yaml: models.x.warmup is unknown; notebooks/x.ipynb knows {NAMES}."),
    ({"lr": None}, "params.yaml: models.x.lr is missing; notebooks/x.ipynb expects float, in (0, 1] (step)."),
    ({"epoch": "3"}, f"params.yaml: models.x.epoch is unknown; notebooks/x.ipynb knows {NAMES}. Did you mean epochs?"),
    ({"text": "model: {x: 3}\n"},
     "params.yaml has no section models.x, which notebooks/x.ipynb reads. Did you mean model?"),
    ({"text": "models: {x: 3}\n"}, "params.yaml: models.x must hold parameters with their values, found 3."),
    ({"text": "models: {y: {}}\n"}, "params.yaml has no section models.x, which notebooks/x.ipynb reads."),
    ({"text": "models: [x]\n"}, "params.yaml has no section models.x, which notebooks/x.ipynb reads."),
    ({"text": "just words\n"}, "params.yaml must hold sections such as data: and models:, found 'just words'."),
    ({"text": "models:\n  x: [1\n"}, "params.yaml is not valid YAML: expected ',' or ']'"),
    ({"text": "models:\n  lr: 1\n  lr: 2\n"}, 'params.yaml is not valid YAML: found duplicate key "lr" with value "2"'),
    ({"text": "a: !!python/object/apply:os.getcwd []\n"}, "params.yaml is not valid YAML: could not determine"),
])
def test_one_sentence_for_a_bad_file(checked, options, said):
    with pytest.raises(UserError) as refused:
        checked(**options)
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)


@pytest.mark.parametrize("cell, said", [
    ("epochs = 3", "`epochs = 3` in the parameters cell must read `name: type = P.name"),
    ("epochs: int = 3", "`epochs: int = 3` in the parameters cell must read `epochs: int = P.epochs`; where it is an"),
    ("import os", "`import os` in the parameters cell must read"),
    ("epochs: int = P.lr", "`epochs: int = P.lr` in the parameters cell must read `epochs: int = P.epochs`"),
    ("epochs: int = Q.epochs", "`epochs: int = Q.epochs` in the parameters cell reads Q: an earlier cell must say "),
    ("lr: float = P.lr\nlr: float = P.lr", "`lr: float = P.lr` in the parameters cell comes twice."),
    ("epochs: list = P.epochs", "`epochs: list = P.epochs` in the parameters cell has a type other than int"),
    ("epochs: dict[str, int] = P.epochs", "`epochs: dict[str, int] = P.epochs` in the parameters cell has a"),
    ("epochs: int = P.epochs  # n = 3", "`epochs: int = P.epochs` in the parameters cell has an = in its comment."),
    ("epochs: int = P.epochs  # [1, many] passes", f"{CALLED} `[1, many] passes`."),
    ("epochs: int = P.epochs  # [9, 1] passes", f"{CALLED} `[9, 1] passes`."),
    ("epochs: int = P.epochs  # [nan, 1] passes", f"{CALLED} `[nan, 1] passes`."),
    ("epochs: int = P.epochs  # [1, 9", f"{CALLED} `[1, 9`."),
    ("device: str = P.device  # [1, 9] passes", "the range of `device: str = P.device` must be two numbers"),
    ("epochs: int =", "line 1 of the parameters cell is not Python: invalid syntax."),
])
def test_one_sentence_for_a_bad_declaration(checked, cell, said):
    with pytest.raises(UserError) as refused:
        checked(f"@{cell}")
    assert str(refused.value).startswith(f"notebooks/x.ipynb: {said}") and "\n" not in str(refused.value)


def test_two_parameter_cells(checked):
    with pytest.raises(UserError, match="^notebooks/x.ipynb must have at most one cell tagged `parameters`, found 2.$"):
        checked("@epochs: int = P.epochs", "@lr: float = P.lr")


def test_names_of_sections_are_plain(checked):
    with pytest.raises(UserError, match="^notebooks/x.ipynb: the section 'models.X' of params.yaml; a name is small"):
        checked('P = section("models.X")', "@lr: float = P.lr")


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1" + "0" * 400])
def test_a_float_without_a_range_is_a_finite_number(checked, value):
    with pytest.raises(UserError, match=r"models.x.lr must be float \(step\), found"):
        checked("@lr: float = P.lr  # step", text=f"models: {{x: {{lr: {value}}}}}")


def test_a_name_that_is_mistyped(checked, tmp_path):
    with pytest.raises(UserError, match="unknown"):
        checked(lr=None, l_r="3")
    with pytest.raises(UserError, match=r"models.x.lr is missing; .* Did you mean l_r\?$"):
        schema.values_of(tmp_path / "notebooks" / "x.ipynb")


def test_two_notebooks_may_share_a_section(checked, tmp_path):
    text = "models: {x: {epochs: 1, lr: 0.5}}"
    with pytest.raises(UserError, match="models.x.lr is unknown; notebooks/x.ipynb knows epochs"):
        checked("@epochs: int = P.epochs", text=text)
    first, second = (tmp_path / "notebooks" / name for name in ("x.ipynb", "y.ipynb"))
    notebook(second, 'P = section("models.x")', "@lr: float = P.lr")
    schema.check_known([first, second])


def test_bytes_that_are_no_text(checked, tmp_path):
    checked()
    (tmp_path / "params.yaml").write_bytes(b"models: {x: {}} # \xff\n")
    with pytest.raises(UserError, match="^params.yaml is not valid YAML: 'utf-8' codec"):
        values.read()


@pytest.mark.parametrize("content, said", [
    ("", "is not a notebook: "), ("{", "is not a notebook: "), ("[]", "is not a notebook of format 4"),
    ('{"nbformat": 3, "worksheets": []}', "is not a notebook of format 4"),
    ('{"nbformat": 4, "metadata": {}, "cells": []}', "is not a notebook of format 4"),  # it lacks its minor version
    ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code", "source": "1"}]}',
     "is not a notebook: cell 1 lacks its type"),
    (None, "is not there, and dvc.yaml names it"),
])
def test_not_a_notebook(tmp_path, content, said):
    path = tmp_path / "notebooks" / "x.ipynb"
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=f"^notebooks/x.ipynb {said}"):
        schema.declared(path)


def test_papermill_sees_the_same_declarations(tmp_path):
    """It has no eye for `| None`; it passes such a parameter all the same."""
    notebook(tmp_path / "x.ipynb", "P = section('models.x')\nS = section('split')", f"@{CELL}")
    seen = papermill.inspect_notebook(str(tmp_path / "x.ipynb"))
    ours = {name: each.type for name, each in schema.declared(tmp_path / "x.ipynb").items()}
    assert {name: each["inferred_type_name"] for name, each in seen.items()} == {
        name: kind for name, kind in ours.items() if "None" not in kind}


def test_values_are_those_that_dvc_reads(tmp_path, inside):
    import dvc.api

    inside(ROOT)
    assert values.read() == dvc.api.params_show(repo=str(ROOT))
    (tmp_path / "project.yaml").touch()
    (tmp_path / "params.yaml").write_text("a: 1e-3\nb: yes\nc: 0o17\nd: [1, null]\n")
    inside(tmp_path)
    read = values.read()
    assert read == {"a": 0.001, "b": "yes", "c": 15, "d": [1, None]} and type(read["a"]) is float


def test_section(checked):
    checked()
    assert vars(values.section("models.x"))["sizes"] == [1, 9]
    assert values.chosen(values.section("split"), {"seed": 2, "other": 3}) == {"seed": 2}
    with pytest.raises(KeyError, match="params.yaml has no section models.nothing"):
        values.section("models.nothing")
