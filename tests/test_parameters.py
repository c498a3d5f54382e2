"""One definition of each parameter, and one clear sentence for each mistake."""

import json
import shutil

import nbformat
import papermill
import pytest
from conftest import ROOT

from pipeline import Refused
from pipeline.stage import parameters

CELL = """\
epochs: int = P.epochs  # [1, 100] passes
lr: float = P.lr  # (0, 1] step
device: str = P.device  # {auto, cpu} where
loud: bool = P.loud  # say more"""
GOOD = {"epochs": "3", "lr": "0.1", "device": "cpu", "loud": "true"}


def project(folder, cell=CELL, models=None, text=None, tags=(("parameters",),), **changes):
    """A params.yaml with one model `x`, and its notebook with a cell for each entry of `tags`."""
    (folder / "notebooks").mkdir(exist_ok=True)
    code = [nbformat.v4.new_code_cell(cell, metadata={"tags": list(each)}) for each in tags]
    nbformat.write(nbformat.v4.new_notebook(cells=code), folder / "notebooks" / "x.ipynb")
    values = "".join(f"    {name}: {value}\n" for name, value in (GOOD | changes).items() if value is not None)
    (folder / "params.yaml").write_text(text or models or f"models:\n  x:\n{values}", encoding="utf-8")
    return folder


def test_typed_values(tmp_path):
    notebook, values = parameters.checked("x", project(tmp_path, lr="1e-3"))
    assert values == {"epochs": 3, "lr": 0.001, "device": "cpu", "loud": True} and notebook.name == "x.ipynb"
    _, values = parameters.checked("x", project(tmp_path, lr="1"))
    assert values["lr"] == 1.0 and type(values["lr"]) is float


@pytest.mark.parametrize("changes, key, expected, found", [
    ({"epochs": "0"}, "models.x.epochs", "int in [1, 100]", "0"),
    ({"epochs": "101"}, "models.x.epochs", "int in [1, 100]", "101"),
    ({"epochs": "1.5"}, "models.x.epochs", "int in [1, 100]", "1.5"),
    ({"epochs": "true"}, "models.x.epochs", "int in [1, 100]", "True"),
    ({"lr": "fast"}, "models.x.lr", "float in (0, 1]", "'fast'"),
    ({"lr": "0"}, "models.x.lr", "float in (0, 1]", "0"),
    ({"lr": "false"}, "models.x.lr", "float in (0, 1]", "False"),
    ({"lr": ".nan"}, "models.x.lr", "float in (0, 1]", "nan"),
    ({"lr": ".inf"}, "models.x.lr", "float in (0, 1]", "inf"),
    ({"lr": "[0.1]"}, "models.x.lr", "float in (0, 1]", "[0.1]"),
    ({"device": "gpu"}, "models.x.device", "str in {auto, cpu}", "'gpu'"),
    ({"device": "1"}, "models.x.device", "str in {auto, cpu}", "1"),
    ({"loud": "1"}, "models.x.loud", "bool", "1"),
    ({"loud": "null"}, "models.x.loud", "bool", "None"),
])
def test_one_sentence_for_a_bad_value(tmp_path, changes, key, expected, found):
    with pytest.raises(Refused) as refused:
        parameters.checked("x", project(tmp_path, **changes))
    said = str(refused.value)
    assert said.startswith(f"params.yaml: {key} must be {expected} (") and said.endswith(f"found {found}.") and "\n" not in said


@pytest.mark.parametrize("options, said", [
    ({"warmup": "3"}, "params.yaml: models.x.warmup is unknown; notebooks/x.ipynb knows epochs, lr, device, loud."),
    ({"lr": None}, "params.yaml: models.x.lr is missing; notebooks/x.ipynb expects float in (0, 1] (step)."),
    ({"models": "models:\n  x: 3\n"}, "params.yaml: models.x must hold epochs, lr, device, loud, found 3."),
    ({"models": "models: {}\n"}, "params.yaml: models must hold at least one model"),
    ({"models": "models: [x]\n"}, "params.yaml: models must hold at least one model"),
    ({"models": "models: {Cnn: {}}\n"}, "params.yaml: models has the name 'Cnn'; a name is small letters, digits and _, a letter first."),
    ({"models": "models: {../x: {}}\n"}, "params.yaml: models has the name '../x'"),
    ({"models": "models: {'x; touch pwned': {}}\n"}, "params.yaml: models has the name 'x; touch pwned'"),
    ({"models": "models: {1: {}}\n"}, "params.yaml: models has the name 1"),
    ({"models": "data: {}\nmodels: {data: {}}\n"}, "params.yaml: models.data has the name of the section data"),
    ({"models": "models: {y: {}}\n"}, "params.yaml has no section 'x'; there are y."),
    ({"text": "just words\n"}, "params.yaml must hold sections"),
    ({"text": "1: {}\nmodels: {x: {}}\n"}, "params.yaml has a section with the name 1; a name is small letters"),
    ({"text": "'$(pwned)': {}\nmodels: {x: {}}\n"}, "params.yaml has a section with the name '$(pwned)'"),
    ({"text": "models:\n  x: [1\n"}, "params.yaml is not valid YAML: expected ',' or ']'"),
    ({"text": "models:\n  x:\n    lr: 1\n    lr: 2\n"}, 'params.yaml is not valid YAML: found duplicate key "lr" with value "2"'),
    ({"text": "models: !!python/object/apply:os.getcwd []\n"}, "params.yaml is not valid YAML: could not determine a constructor"),
    ({"tags": ()}, "notebooks/x.ipynb must have one cell tagged `parameters`, found 0."),
    ({"tags": (("parameters",), ("parameters",))}, "notebooks/x.ipynb must have one cell tagged `parameters`, found 2."),
    ({"cell": "epochs = 3"}, "notebooks/x.ipynb: `epochs = 3` in the parameters cell must read `name: type = P.name"),
    ({"cell": "epochs: int = 3"}, "notebooks/x.ipynb: `epochs: int = 3` in the parameters cell must read"),
    ({"cell": "import os"}, "notebooks/x.ipynb: `import os` in the parameters cell must read"),
    ({"cell": "epochs: int = P.lr"}, "notebooks/x.ipynb: `epochs: int = P.lr` in the parameters cell must read"),
    ({"cell": "epochs: int = P.epochs\nepochs: int = P.epochs"}, "in the parameters cell comes twice."),
    ({"cell": "epochs: list = P.epochs"}, "has a type other than int, float, bool, str."),
    ({"cell": "epochs: int = P.epochs  # n = 3"}, "has an = in its comment."),
    ({"cell": "epochs: int = P.epochs  # [1, many] passes"}, "must be two numbers such as [1, 100]"),
    ({"cell": "epochs: int = P.epochs  # [9, 1] passes"}, "must be two numbers such as [1, 100]"),
    ({"cell": "epochs: int = P.epochs  # [nan, 1] passes"}, "must be two numbers such as [1, 100]"),
    ({"cell": "device: str = P.device  # [1, 9] passes"}, "must be two numbers such as [1, 100]"),
    ({"cell": "epochs: int = P.epochs  # [1, 9"}, "must be two numbers such as [1, 100]"),
    ({"cell": "epochs: int ="}, "line 1 of the parameters cell is not Python"),
])
def test_one_sentence_for_a_bad_definition(tmp_path, options, said):
    with pytest.raises(Refused) as refused:
        parameters.checked("x", project(tmp_path, **options))
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1" + "0" * 400])
def test_a_float_without_a_range_is_a_finite_number(tmp_path, value):
    with pytest.raises(Refused, match=r"models.x.lr must be float \(step\), found"):
        parameters.checked("x", project(tmp_path, cell="lr: float = P.lr  # step", epochs=None, device=None, loud=None, lr=value))


def test_bytes_that_are_no_text(tmp_path):
    project(tmp_path)
    (tmp_path / "params.yaml").write_bytes(b"models: {x: {}} # \xff\n")
    with pytest.raises(Refused, match="params.yaml is not valid YAML: 'utf-8' codec"):
        parameters.checked("x", tmp_path)


@pytest.mark.parametrize("name", ["../x", "models", "x y", "", "nothing"])
def test_no_such_stage(tmp_path, name):
    with pytest.raises(Refused, match="has no section"):
        parameters.checked(name, project(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"nbformat": 3, "worksheets": []}'])
def test_not_a_notebook(tmp_path, content):
    project(tmp_path)
    (tmp_path / "notebooks" / "x.ipynb").write_text(content)
    with pytest.raises(Refused, match="notebooks/x.ipynb is not a notebook"):
        parameters.checked("x", tmp_path)
    (tmp_path / "notebooks" / "x.ipynb").unlink()
    with pytest.raises(Refused, match="notebooks/x.ipynb is not there: every model"):
        parameters.checked("x", tmp_path)


def test_papermill_sees_the_same_definitions():
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        if notebook.stem != "sweep" and any("parameters" in cell["metadata"].get("tags", []) for cell in cells):  # sweep's come from make sweep
            seen = papermill.inspect_notebook(str(notebook))
            ours = parameters.definitions(notebook)
            assert {name: each["inferred_type_name"] for name, each in seen.items()} == {name: each.type for name, each in ours.items()}
            assert all(each.meaning for each in ours.values())


def test_values_are_those_that_dvc_reads(tmp_path):
    import dvc.api

    from digits.params import section

    by_dvc = dvc.api.params_show(repo=str(ROOT))
    assert parameters.read(ROOT / "params.yaml") == by_dvc
    assert vars(section("models.cnn")) == by_dvc["models"]["cnn"] and vars(section("data")) == by_dvc["data"]
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "params.yaml").write_text("a: 1e-3\nb: yes\nc: 0o17\nd: 010\n")
    read = parameters.read(tmp_path / "params.yaml")
    assert read["a"] == 0.001 and type(read["a"]) is float and read["b"] == "yes" and read["c"] == 15


def test_section_that_is_missing():
    from digits.params import section

    with pytest.raises(KeyError, match="no section models.nothing"):
        section("models.nothing")
