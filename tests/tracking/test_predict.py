"""Inputs are checked by the signature, alike in CSV and JSON; no code of a model runs untrusted."""

import json
import shutil
from pathlib import Path

import mlflow
import numpy
import pandas
import pytest
from mlflow.models import infer_signature
from portable_models import portable

from nbproof.notebook.errors import UserError
from nbproof.pipeline import config
from nbproof.tracking import predict, registry

MODEL = """\
import mlflow, numpy
class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        {body}
mlflow.models.set_model(Model())
"""
SHOW = "return [repr(row) for row in model_input[['age', 'ward', 'smokes']].values.tolist()]"
TABLE = pandas.DataFrame({"age": [50.0], "visits": [2], "ward": ["007"], "smokes": [True]})
NUMBER = pandas.DataFrame({"x": [1.0]})
PREPARE = """\
import numpy
def prepare(paths, facts):
    return numpy.array([[len(path.read_text()) * facts['scale']] * 2 for path in paths])
def answer(output, case): return f'{case}: {output:.0f} letters'
def image(paths, facts): return numpy.zeros((len(paths), 1, 28, 28), numpy.float32)
"""


def contract(here: Path, more: str = "", pickle: bool = True) -> None:
    text = f"name: small\nmetric: {{key: rmse, goal: min}}\ncompare: compare\n{more}"
    (here / "project.yaml").write_text(text + "pickle: true\n" * pickle)
    config.load.cache_clear()


@pytest.fixture
def here(trained, monkeypatch):
    contract(trained)
    (trained / "notebooks" / "asking.py").write_text(PREPARE)
    monkeypatch.syspath_prepend(str(trained / "notebooks"))
    return trained


@pytest.fixture
def champion(here):
    """`champion(body, inputs, outputs)` saves a model as models/near, which no store has."""
    def made(body: str, inputs, outputs, **options) -> Path:
        (here / "code.py").write_text(MODEL.format(body=body))
        shutil.rmtree(here / "models/near")
        mlflow.pyfunc.save_model(
            here / "models/near", python_model=str(here / "code.py"), pip_requirements=[],
            signature=infer_signature(inputs, outputs), **options)
        return here / "models/near"

    return made


@pytest.fixture
def ask(capsys):
    """`ask({name: text})` returns what is printed for files, and what is said beside it."""
    def printed(texts: dict[str, str]) -> tuple[str, str]:
        for name, text in texts.items():
            Path(name).write_text(text, encoding="utf-8")
        assert predict.predict([Path(name) for name in texts]) == 0
        return capsys.readouterr()

    return printed


def test_texts_and_blanks_mean_the_same_in_csv_and_json(champion, ask):
    """F3, F4: NA was a number that is missing, a blank boolean True in CSV and False in JSON."""
    champion(SHOW, TABLE, numpy.array(["x"]))
    rows = [("NA", 1.5), ("None", 0.1), ("null", None), ("", 1e300), ("007", 2)]
    table = pandas.DataFrame(rows, columns=["ward", "age"]).assign(visits=1, smokes=True, more="")
    columns = {name: list(column.values()) for name, column in json.loads(table.to_json()).items()}
    texts = {"a.csv": table.to_csv(index=False), "b.json": json.dumps(columns),
             "a.json": table.to_json(orient="records", double_precision=15)}
    shown = ['"[1.5, \'NA\', True]"', '"[0.1, \'None\', True]"', '"[nan, \'null\', True]"',
             '"[1e+300, \'\', True]"', '"[2.0, \'007\', True]"']
    out, said = ask(texts)
    assert out.splitlines() == ["file,row,prediction_0", *(
        f"{name},{row},{text}" for name in texts for row, text in enumerate(shown, start=1))]
    assert said.endswith("models/near of this folder, which is not registered.\n")


@pytest.mark.parametrize("name, text, sentence", [
    ("a.csv", "age,visits,ward\n1,1,a\n", r"Model is missing inputs \['smokes'\]"),
    ("a.csv", "age,visits,ward,smokes\nNA,1,a,true\n", "could not convert string to float: 'NA'"),
    *[("a.csv", f"age,visits,ward,smokes\n1,{row}\n1,1,a,true\n", "a.csv is no table of the champ")
      for row in (",a,true", "1.5,a,true", "1,a,", "1,a,perhaps", "1,a,2")],
    ("a.json", '[{"age": 1, "visits": 1, "ward": "a", "smokes": null}]', "a.json is no table"),
    ("a.json", "{", "a.json is no table"),
])
def test_a_table_that_does_not_fit_is_refused(champion, ask, name, text, sentence):
    champion(SHOW, TABLE, numpy.array(["x"]))
    with pytest.raises(UserError, match=sentence):
        ask({name: text})


def test_arrays_and_what_a_model_raises(champion, ask):
    champion("return numpy.stack([model_input.sum(1), model_input.max(1)], 1)",
             numpy.zeros((3, 2)), numpy.zeros((3, 2)))
    assert ask({"a.csv": "a,b\n1,2\n3,4\n"})[0] == \
        "file,row,prediction_0,prediction_1\na.csv,1,3.0,2.0\na.csv,2,7.0,4.0\n"
    with pytest.raises(UserError, match="cannot predict from that: .*shape"):
        ask({"a.csv": "a,b,c\n1,2,3\n"})


def test_the_projects_hooks_read_and_word(champion, here, ask):
    champion("return model_input.sum(1)", numpy.zeros((3, 2)), numpy.zeros(3),
             metadata={"scale": 0.5})
    contract(here, "hooks: {prepare: asking:prepare, answer: asking:answer}\n")
    assert ask({"a.txt": "abc", "b.txt": "abcd"})[0] == "0: 3 letters\n1: 4 letters\n"
    contract(here, "hooks: {prepare: asking:prepare}\n")
    assert ask({"a.txt": "abc"})[0] == "3.0\n"


@pytest.mark.parametrize("kind", ["code", "loader", "model code", "cloudpickle", "skops"])
def test_no_code_of_a_model_runs_unless_the_project_trusts_it(here, champion, ask, kind):
    """H4: an MLmodel with `code:` and `loader_module:` ran them, whatever the project said.

    MLflow refuses skops' files, too: the model itself lists the types that they may hold.
    """
    from sklearn.linear_model import LinearRegression

    evil, loader = f"open({str(here / 'ran')!r}, 'w')\n", "mlflow.sklearn"
    model = champion("return model_input.x", NUMBER, numpy.zeros(1))
    if kind in ("cloudpickle", "skops"):
        shutil.rmtree(model)
        mlflow.sklearn.save_model(
            LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0]), model, serialization_format=kind,
            pip_requirements=[], signature=infer_signature(NUMBER, numpy.zeros(1)))
    elif kind == "model code":
        (model / "code.py").write_text(evil + (model / "code.py").read_text())
    else:
        (model / "own").mkdir()
        (model / "own/evil.py").write_text(evil)
        (model / "MLmodel").write_text("flavors: {python_function: {code: own, loader_module: "
                                       f"{'evil' if kind == 'loader' else loader}}}}}\n")
    contract(here, pickle=False)
    with pytest.raises(UserError, match="also one of skops.*: true in project.yaml"):
        ask({"a.csv": "x\n3\n"})
    assert not (here / "ran").exists()


def test_the_registered_champion_predicts_also_after_a_move(
        here, champion, ask, inside, tmp_path, monkeypatch):
    champion("return model_input.x * 2", NUMBER, numpy.zeros(1))
    contract(here, "data: data.source\n")
    registry.promote()
    test_table = {"a.csv": "x,rmse\n3,9\n"}  # with its target
    for _ in range(2):
        out, said = ask(test_table)
        assert out.endswith("file,row,prediction_0\na.csv,1,6.0\n")
        assert "version 1: near, trained with data.source: table." in said
        if here.exists():
            moved = inside(here.rename(tmp_path / "moved"))
            monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow set it
    assert not [path for path in moved.rglob("*") if path.name in ("mlruns", "__pycache__")]


def test_a_damaged_or_foreign_onnx_file_is_refused(here, ask):
    """It is not passed over for another flavour, whose predictions may be others."""
    portable(here / "models/near.onnx", 3)
    contract(here, "hooks: {prepare: asking:image}\n")
    assert "models/near of this folder" in ask({"a.png": "x"})[1]
    registry.promote()
    onnx = next(here.glob("mlartifacts/*/artifacts/portable/near.onnx"))
    assert "0.9" in ask({"a.png": "x"})[0]
    for damage in (lambda: onnx.write_bytes(b"no model"), lambda: portable(onnx, 7)):
        damage()
        with pytest.raises(UserError, match="damaged"):
            ask({"a.png": "x"})


def test_without_an_answer_of_the_registry_nothing_predicts_in_its_place(here, ask, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:secret@127.0.0.1:9")
    with pytest.raises(UserError, match="registry at http://127.0.0.1:9 cannot be read: "):
        ask({"a.csv": "x\n1\n"})
