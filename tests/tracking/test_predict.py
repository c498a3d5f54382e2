"""Inputs are checked by the signature, alike in CSV and JSON; no code of a model runs untrusted."""

import json
import os
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
TABLE = pandas.DataFrame({"age": [50.0], "visits": [2], "ward": ["007"], "smokes": [True]})
SHOW = "return [repr(row) for row in model_input[['age', 'ward', 'smokes']].values.tolist()]"
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
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return trained


@pytest.fixture
def champion(here, monkeypatch):
    """`champion(body, inputs, outputs)` saves a model as models/near, which no store has."""
    def made(body: str, inputs, outputs, **options) -> None:
        (here / "code.py").write_text(MODEL.format(body=body))
        shutil.rmtree(here / "models/near")
        mlflow.pyfunc.save_model(
            here / "models/near", python_model=str(here / "code.py"), pip_requirements=[],
            signature=infer_signature(inputs, outputs), **options)

    return made


def files(name: str, text: str) -> list[Path]:
    Path(name).write_text(text, encoding="utf-8")
    return [Path(name)]


def test_tables_give_csv(champion, capsys):
    champion("assert model_input.ward[0] == '007'; return model_input.age + model_input.visits "
             "+ model_input.smokes", TABLE, numpy.array([1.0]))
    table = files("a.csv", "visits,ward,smokes,age,more\n2,007,true,50,x\n3,007,False,,y\n")
    assert predict.predict(table) == 0
    printed = capsys.readouterr()
    assert printed.out == "row,prediction\n1,53.0\n2,\n"
    assert "a.csv: the champion does not use more.\n" in printed.err
    assert printed.err.endswith(
        "by the champion, models/near of this folder, which is not registered.\n")
    row = {"age": 1, "visits": 2, "ward": "007", "smokes": False}
    for content in ([row], row, {name: [value] for name, value in row.items()}):
        predict.predict(files("d.json", json.dumps(content)))
        assert capsys.readouterr().out == "row,prediction\n1,3.0\n"
    predict.predict([*table, Path("d.json")])
    assert capsys.readouterr().out == \
        "file,row,prediction\na.csv,1,53.0\na.csv,2,\nd.json,1,3.0\n"


def test_texts_and_blanks_mean_the_same_in_csv_and_json(champion, capsys):
    """F3, F4: NA was a number that is missing, a blank boolean True in CSV and False in JSON."""
    champion(SHOW, TABLE, numpy.array(["x"]))
    rows = [("NA", 1.5), ("None", 0.1), ("null", None), ("", 1e300), ("7", 2)]
    table = pandas.DataFrame(rows, columns=["ward", "age"]).assign(visits=1, smokes=True)
    predict.predict(files("a.csv", table.to_csv(index=False)))
    from_csv = capsys.readouterr().out
    predict.predict(files("a.json", table.to_json(orient="records", double_precision=15)))
    assert capsys.readouterr().out == from_csv
    assert from_csv.splitlines()[1:] == [
        '1,"[1.5, \'NA\', True]"', '2,"[0.1, \'None\', True]"', '3,"[nan, \'null\', True]"',
        '4,"[1e+300, \'\', True]"', '5,"[2.0, \'7\', True]"']
    predict.predict(files("b.json", '{"visits": 1, "age": 1, "ward": null, "smokes": true}'))
    assert "[1.0, '', True]" in capsys.readouterr().out


@pytest.mark.parametrize("text, sentence", [
    ("age,visits,ward\n1,1,a\n", r"Model is missing inputs \['smokes'\]"),
    ("age,visits,ward,smokes\nNA,1,a,true\n", "could not convert string to float: 'NA'"),
    ("age,visits,ward,smokes\n1,1.5,a,true\n", "a.csv is no table of the champion's inputs"),
    ("age,visits,ward,smokes\n1,,a,true\n", "Integer column has NA values"),
    ("age,visits,ward,smokes\n", "a.csv .*: it has no rows"),
    *[(f"age,visits,ward,smokes\n1,1,a,{cell}\n1,1,a,true\n", "a.csv is no table of the champ")
      for cell in ("", "perhaps", "2")],
    ('{"age": 1, "visits": 1, "ward": "a", "smokes": null}', "a.json is no table of the champ"),
    ("{", "a.json is no table"),
    ("[]", "a.json is no table"),
])
def test_a_table_that_does_not_fit_is_refused(champion, text, sentence):
    champion(SHOW, TABLE, numpy.array(["x"]))
    with pytest.raises(UserError, match=sentence):
        predict.predict(files("a.csv" if text[:3] == "age" else "a.json", text))


def test_arrays_and_what_a_model_raises(champion, capsys):
    champion("return numpy.stack([model_input.sum(1), model_input.max(1)], 1)",
             numpy.zeros((3, 2)), numpy.zeros((3, 2)))
    predict.predict(files("a.csv", "a,b\n1,2\n3,4\n"))
    assert capsys.readouterr().out == "row,prediction_1,prediction_2\n1,3.0,2.0\n2,7.0,4.0\n"
    with pytest.raises(UserError, match="cannot predict from that: .*shape"):
        predict.predict(files("a.csv", "a,b,c\n1,2,3\n"))
    champion("raise KeyError('no such ward')", numpy.zeros((3, 2)), numpy.zeros(3))
    with pytest.raises(UserError, match="cannot predict from that: 'no such ward'"):
        predict.predict(files("a.csv", "a,b\n1,2\n"))


def test_the_projects_hooks_read_and_word(champion, here, capsys):
    champion("return model_input.sum(1)", numpy.zeros((3, 2)), numpy.zeros(3),
             metadata={"scale": 0.5})
    contract(here, "hooks: {prepare: asking:prepare, answer: asking:answer}\n")
    predict.predict([*files("a.txt", "abc"), *files("b.txt", "abcd")])
    assert capsys.readouterr().out == "0: 3 letters\n1: 4 letters\n"
    contract(here, "hooks: {prepare: asking:prepare}\n")
    predict.predict(files("a.txt", "abc"))
    assert capsys.readouterr().out == "3.0\n"


@pytest.mark.parametrize("name, sentence", [
    ("nothing.csv", "nothing.csv is not there"), ("notebooks", "or no file"),
    ("a.txt", "must be a table")])
def test_files_are_looked_at_before_the_store(here, name, sentence, monkeypatch):
    monkeypatch.setattr(predict.versions, "current", pytest.fail)
    Path("a.txt").write_text("x")
    with pytest.raises(UserError, match=sentence):
        predict.predict([Path(name)])


@pytest.mark.parametrize("kind", ["code", "loader", "cloudpickle", "model code"])
def test_no_code_of_a_model_runs_unless_the_project_trusts_it(here, champion, kind, capsys):
    """H4: an MLmodel with `code:` and `loader_module:` ran them, whatever the project said."""
    mlmodel = here / "models/near/MLmodel"
    if kind == "model code":
        champion(f"open({str(here / 'ran')!r}, 'w'); return model_input.x",
                 pandas.DataFrame({"x": [1.0]}), numpy.zeros(1))
        code = here / "models/near/code.py"
        code.write_text(f"open({str(here / 'ran')!r}, 'w')\n{code.read_text()}")
    elif kind == "cloudpickle":
        from sklearn.linear_model import LinearRegression

        shutil.rmtree(here / "models/near")
        mlflow.sklearn.save_model(
            LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0]), here / "models/near",
            serialization_format="cloudpickle", pip_requirements=[],
            signature=infer_signature(pandas.DataFrame({"x": [1.0]}), numpy.zeros(1)))
    else:
        (here / "models/near/own").mkdir()
        loader = "evil_loader" if kind == "loader" else "mlflow.sklearn"
        (here / "models/near/own/evil_loader.py").write_text(f"open({str(here / 'ran')!r}, 'w')\n")
        inputs = '[{"type": "double", "name": "x"}]'
        mlmodel.write_text(f"flavors: {{python_function: {{loader_module: {loader}, code: own, "
                           f"env: conda.yaml}}}}\nsignature: {{inputs: '{inputs}'}}\n")
    contract(here, pickle=False)
    with pytest.raises(UserError, match="pickle: true in project.yaml"):
        predict.predict(files("a.csv", "x\n3\n"))
    assert not (here / "ran").exists()
    if kind == "cloudpickle":
        del os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"]
        contract(here, pickle=True)
        predict.predict(files("a.csv", "x\n3\n"))
        printed = capsys.readouterr()
        assert abs(float(printed.out.removeprefix("row,prediction\n1,")) - 6) < 1e-9


def test_the_registered_champion_predicts_also_after_a_move(
        here, champion, capsys, inside, tmp_path, monkeypatch):
    champion("return model_input.age * 2", TABLE[["age"]], numpy.array([1.0]))
    contract(here, "data: data.source\n")
    registry.promote()
    table = files("a.csv", "age,rmse\n3,9\n")  # its own test table, with a target
    predict.predict(table)
    printed = capsys.readouterr()
    assert printed.out.endswith("row,prediction\n1,6.0\n")
    assert "version 1: near, trained with data.source: table." in printed.err
    moved = inside(here.rename(tmp_path / "moved"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow set it
    predict.predict(table)
    assert "version 1: near" in capsys.readouterr().err
    assert not [path for path in moved.rglob("*") if path.name in ("mlruns", "__pycache__")]


@pytest.mark.parametrize("damage", ["damaged", "foreign"])
def test_a_damaged_or_foreign_onnx_file_is_refused(here, damage, capsys):
    """It is not passed over for another flavour, whose predictions may be others."""
    portable(here / "models/near.onnx", 3)
    contract(here, "hooks: {prepare: asking:image}\n")
    assert predict.predict(files("a.png", "x")) == 0
    assert "models/near of this folder" in capsys.readouterr().err
    registry.promote()
    onnx = next(here.glob("mlartifacts/*/artifacts/portable/near.onnx"))
    assert predict.predict(files("a.png", "x")) == 0
    assert "0.9" in capsys.readouterr().out
    if damage == "damaged":
        onnx.write_bytes(b"no model")
    else:
        portable(onnx, 7)
    with pytest.raises(UserError, match="damaged"):
        predict.predict(files("a.png", "x"))
    assert "0.9" not in capsys.readouterr().out


def test_without_an_answer_of_the_registry_nothing_predicts_in_its_place(here, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://u:secret@127.0.0.1:9")
    with pytest.raises(UserError, match="registry at http://127.0.0.1:9 cannot be read: "):
        predict.predict(files("a.csv", "x\n1\n"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (here / "metrics/compare.json").unlink()
    with pytest.raises(UserError, match="no champion yet: nbproof run makes"):
        predict.predict(files("a.csv", "x\n1\n"))
