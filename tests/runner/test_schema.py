"""One definition of each parameter, and one sentence for each mistake."""

import re

import pytest
from projects import notebook

from nbproof.notebook.errors import UserError
from nbproof.runner import schema

CELL = """\
# how it learns
epochs: int = P.epochs  # [1, 100] passes
lr: float = P.lr  # (0, 1] step

device: str = P.device  # {auto, cpu} where
loud: bool = P.loud  # say more, x = 3
sizes: list[int] = P.sizes  # [1, 9] sizes
limit: float | None = P.limit  # [0, 1) at most
tags: list[str] | None = P.tags  # {a, b} marks
most: float = P.most  # [-1e-3, inf)
seed: int = S.seed"""
GOOD = {"epochs": "3", "lr": "0.1", "device": "cpu", "loud": "true", "sizes": "[1, 9]",
        "limit": "null", "tags": "[a]", "most": "0"}
NAMES = ", ".join(sorted(GOOD))


@pytest.fixture
def checked(tmp_path, inside):
    """A function: the values of the notebook `x` with these cells and this params.yaml."""
    inside(tmp_path)
    (tmp_path / "project.yaml").touch()

    def check(*cells: str, text: str = "", **changes: str | None) -> dict:
        path = tmp_path / "notebooks" / "x.ipynb"
        notebook(path, "P = section(\"models.x\")\nS = section('split')", *(cells or [f"@{CELL}"]))
        given = "".join(f"    {name}: {value}\n" for name, value in (GOOD | changes).items()
                        if value is not None)
        whole = text or f"split: {{seed: 1}}\nmodels:\n  x:\n{given}"
        (tmp_path / "params.yaml").write_text(whole, encoding="utf-8")
        schema.check_known([path])
        return schema.values_of(path)

    return check


def test_values_are_typed(checked):
    assert checked(lr="1e-3") == {
        "epochs": 3, "lr": 0.001, "device": "cpu", "loud": True, "sizes": [1, 9], "limit": None,
        "tags": ["a"], "most": 0.0, "seed": 1}
    found = checked(lr="1", limit="0", sizes="[]", tags="null")
    assert [type(found[name]) for name in ("lr", "limit", "most")] == [float] * 3
    assert (found["sizes"], found["tags"]) == ([], None)
    rates = "@rates: list[float] = P.rates  # (0, 1] rates"
    found = checked(rates, text="models: {x: {rates: [1, 0.5]}}")["rates"]
    assert found == [1.0, 0.5] and type(found[0]) is float
    assert checked("print(1)") == {}


def test_a_default_and_the_value_of_a_command(checked, tmp_path):
    path = tmp_path / "notebooks" / "x.ipynb"
    assert checked('@model: str = "cnn"  # {cnn, mlp} which\nrate: float = 1') == {
        "model": "cnn", "rate": 1.0}
    assert schema.values_of(path, {"model": "mlp", "rate": "2"}) == {"model": "mlp", "rate": 2.0}
    with pytest.raises(UserError, match="^dvc.yaml: model must be str, in {cnn, mlp} .*'svm'.$"):
        schema.values_of(path, {"model": "svm"})


PLAIN = """\
%matplotlib inline
import math
C = 1.0  # [0, 10] strength
name = 'a'; n = 3
flags: list[int] = [1, 2]
mixed = [1, 2.5]  # (see the paper) both
path = None
table = {'a': 1}
pi = math.pi"""


def test_papermills_cell_has_parameters_of_its_values_types(tmp_path, inside):
    inside(tmp_path)
    (tmp_path / "project.yaml").touch()
    path = tmp_path / "notebooks" / "01 My-model.ipynb"
    notebook(path, f"@{PLAIN}")
    own = {"C": 1.0, "name": "a", "n": 3, "flags": [1, 2], "mixed": [1.0, 2.5]}
    assert schema.values_of(path) == own and schema.sections_read(path) == []
    found = schema.declared(path)
    assert [found[name].type for name in own] == ["float", "str", "int", "list[int]", "list[float]"]
    assert (found["C"].allowed, found["C"].meaning) == ("[0, 10]", "strength")
    assert (found["mixed"].allowed, found["mixed"].meaning) == ("", "(see the paper) both")
    (tmp_path / "params.yaml").write_text("01_my_model: {C: 2, n: 4}\n")
    assert schema.values_of(path) == own | {"C": 2.0, "n": 4}
    assert schema.sections_read(path) == ["01_my_model"]
    for text, reason in {"C: 11": r"01_my_model.C must be float, in \[0, 10\] .* found 11",
                         "c: 1": "01_my_model.c is unknown"}.items():
        (tmp_path / "params.yaml").write_text(f"01_my_model: {{{text}}}\n")
        with pytest.raises(UserError, match=reason):
            schema.values_of(path)
            schema.check_known([path])


@pytest.mark.parametrize("cells, reason", [
    (["@a = ("], "is not Python"),
    (["@a = 1", "@b = 2"], "must have one cell tagged `parameters`, found 2"),
    (['P = section("My-tree.")', "@lr: float = P.lr"], "has no section My-tree., which")])
def test_a_parameters_cell_that_would_mislead_is_refused(checked, cells, reason):
    with pytest.raises(UserError, match=reason):
        checked(*cells)


EXPECTED = {
    "epochs": "int, in [1, 100] (passes)", "lr": "float, in (0, 1] (step)",
    "device": "str, in {auto, cpu} (where)", "loud": "bool (say more, x = 3)",
    "sizes": "list[int], each in [1, 9] (sizes)", "limit": "float | None, in [0, 1) (at most)",
    "tags": "list[str] | None, each in {a, b} (marks)", "most": "float, in [-1e-3, inf)",
}


@pytest.mark.parametrize(("key", "value", "found"), [
    ("epochs", "101", "101"), ("epochs", "1.5", "1.5"), ("epochs", "true", "True"),
    ("lr", "fast", "'fast'"), ("lr", "0", "0"), ("lr", ".nan", "nan"), ("lr", None, "nothing"),
    ("most", ".inf", "inf"), ("most", 10**400, 10**400), ("device", "gpu", "'gpu'"),
    ("limit", "1", "1"), ("sizes", "3", "3"), ("sizes", "[3, 10]", "[3, 10]"),
    ("sizes", "[null]", "[None]"), ("tags", "[c]", "['c']"),
])
def test_a_bad_value_is_refused(checked, key, value, found):
    with pytest.raises(UserError) as refused:
        checked(**{key: value})
    wanted = f"params.yaml: models.x.{key} must be {EXPECTED[key]}, found {found}."
    assert str(refused.value) == wanted


@pytest.mark.parametrize("options, message", [
    ({"epoch": "3"}, f"params.yaml: models.x.epoch is unknown; notebooks/x.ipynb knows {NAMES}. "
                     "Did you mean epochs?"),
    ({"text": "models: [x]\n"}, "params.yaml has no section models.x, which notebooks/x.ipynb re"),
    ({"text": "models: {x: }\nsplit: {seed: 1}\n"}, "params.yaml: models.x.epochs must be int, in"),
])
def test_a_bad_file_is_refused(checked, options, message):
    with pytest.raises(UserError) as refused:
        checked(**options)
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)


@pytest.mark.parametrize("line", [
    "epochs = 3", "import os", "epochs: int = P.lr", "epochs: int = Q.epochs",
    "epochs: dict[str, int] = P.epochs", "epochs: int = P.epochs; import os",
    "epochs: int = P.epochs  # [1, many] passes", "epochs: int = P.epochs  # [1, 9"])
def test_a_line_that_declares_nothing_is_refused(checked, line):
    message = f"notebooks/x.ipynb: `{line}` in the parameters cell must read `name: type = P.name "
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        checked(f"@{line}")


def test_a_section_may_have_any_name(checked):
    """H12: capitals and hyphens were refused, in a sentence that asked for what was there."""
    cells = ('P = section("My-tree")', "@lr: float = P.lr")
    assert checked(*cells, text="My-tree: {lr: 1}") == {"lr": 1.0}


def test_a_mistyped_name_and_a_shared_section(checked, tmp_path):
    first, second = (tmp_path / "notebooks" / name for name in ("x.ipynb", "y.ipynb"))
    with pytest.raises(UserError, match="models.x.l_r is unknown;"):
        checked(lr=None, l_r="3")
    with pytest.raises(UserError, match=r"params.yaml has models.x.l_r: should that be lr\?$"):
        schema.values_of(first)
    with pytest.raises(UserError, match="models.x.lr is unknown; notebooks/x.ipynb knows epochs"):
        checked("@epochs: int = P.epochs", text="models: {x: {epochs: 1, lr: 0.5}}")
    notebook(second, 'P = section("models.x")', "@lr: float = P.lr")
    schema.check_known([first, second])
