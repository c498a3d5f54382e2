"""What a model is asked is checked by its signature; the answers are CSV, or what the project's hooks make of them."""

from pathlib import Path

import mlflow
import numpy
import pandas
import pytest
from mlflow.models import infer_signature

from nbproof.pipeline import config
from nbproof.tracking import predict
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root

MODEL = """\
import mlflow, numpy
class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        {body}
mlflow.models.set_model(Model())
"""
TABLE = pandas.DataFrame({"age": [50.0], "visits": [2], "ward": ["007"], "smokes": [True]})


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["notebooks", *__import__("sys").path])
    (tmp_path / "notebooks").mkdir()
    contract(tmp_path)
    yield tmp_path
    root.cache_clear()


def contract(here: Path, more: str = "") -> None:
    (here / "project.yaml").write_text(f"name: small\nmetric: {{key: f1, goal: max}}\n{more}")
    root.cache_clear()
    config.load.cache_clear()


@pytest.fixture
def champion(here, monkeypatch):
    """Makes the champion a model with `body` and the signature of `asked` and `answered`."""

    def made(body: str, asked, answered, **options) -> None:
        (here / "code.py").write_text(MODEL.format(body=body))
        mlflow.pyfunc.save_model(
            here / "model",
            python_model=str(here / "code.py"),
            pip_requirements=[],
            signature=infer_signature(asked, answered),
            **options,
        )
        loaded = mlflow.pyfunc.load_model(str(here / "model"))
        monkeypatch.setattr(predict, "_champion", lambda: (loaded, "version 1: small"))

    return made


def asked(name: str, text: str) -> list[Path]:
    Path(name).write_text(text)
    return [Path(name)]


def test_tables_are_answered_as_csv(champion, capsys):
    champion(
        "assert model_input.ward[0] == '007'; return model_input.age + model_input.visits + model_input.smokes",
        TABLE,
        numpy.array([1.0]),
    )
    csv = asked("a.csv", "visits,ward,smokes,age\n2,007,true,50\n3,007,false,\n")
    assert predict.predict(csv) == 0
    printed = capsys.readouterr()
    assert printed.out == "row,prediction\n1,53.0\n2,\n" and printed.err.endswith(
        "Answered by the champion, version 1: small.\n"
    )
    predict.predict(asked("b.json", '[{"age": 1, "visits": 2, "ward": "007", "smokes": true}]'))
    predict.predict(asked("c.json", '{"age": 1.5, "visits": 2, "ward": "007", "smokes": false}'))
    predict.predict(asked("d.json", '{"age": [1], "visits": [2], "ward": ["007"], "smokes": [false]}'))
    assert capsys.readouterr().out == "row,prediction\n1,4.0\nrow,prediction\n1,3.5\nrow,prediction\n1,3.0\n"
    predict.predict([*csv, Path("d.json")])
    assert capsys.readouterr().out == "file,row,prediction\na.csv,1,53.0\na.csv,2,\nd.json,1,3.0\n"


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("age,visits,ward\n1,1,a\n", "lacks the column 'smokes'; the champion asks for age, visits, ward, smokes"),
        ("age,visits,ward,smokes,extra\n1,1,a,true,1\n", "has the unknown column 'extra'"),
        (
            "age,visits,ward,smokes\nold,1,a,true\n",
            "column age must be double: could not convert string to float: 'old'",
        ),
        ("age,visits,ward,smokes\n1,1.5,a,true\n", "column visits must be long: found 1.5"),
        ("age,visits,ward,smokes\n1,,a,true\n", "column visits must be long: "),
        ("age,visits,ward,smokes\n1,1,a,perhaps\n", "column smokes must be boolean: found 'perhaps'"),
        ("age,visits,ward,smokes\n", "a.csv has no rows"),
        ('"age,visits\n', "a.csv is no table"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(champion, text, sentence):
    champion("return model_input.age", TABLE, numpy.array([1.0]))
    with pytest.raises(UserError, match=sentence):
        predict.predict(asked("a.csv", text))


@pytest.mark.parametrize(
    "text, sentence",
    [
        ('[{"age": 1, "visits": 2, "ward": 7, "smokes": true}]', "column ward must be string: found 7"),
        ("{", "a.json is no table"),
        ("[]", "a.json has no rows"),
        ("3", "a.json is no table"),
    ],
)
def test_json_that_does_not_fit_is_refused(champion, text, sentence):
    champion("return model_input.age", TABLE, numpy.array([1.0]))
    with pytest.raises(UserError, match=sentence):
        predict.predict(asked("a.json", text))


def test_what_a_model_raises_is_one_sentence(champion):
    champion("raise KeyError('no such ward')", numpy.zeros((3, 2)), numpy.zeros(3))
    with pytest.raises(UserError, match="cannot answer that: 'no such ward'"):
        predict.predict(asked("a.csv", "a,b\n1,2\n"))


def test_arrays(champion, capsys):
    champion(
        "return numpy.stack([model_input.sum(1), model_input.max(1)], 1)", numpy.zeros((3, 2)), numpy.zeros((3, 2))
    )
    predict.predict(asked("a.csv", "a,b\n1,2\n3,4\n"))
    assert capsys.readouterr().out == "row,prediction_1,prediction_2\n1,3.0,2.0\n2,7.0,4.0\n"
    with pytest.raises(UserError, match="must have 2 columns, found 3"):
        predict.predict(asked("a.csv", "a,b,c\n1,2,3\n"))


def test_the_projects_hooks_read_and_word(champion, here, capsys):
    (here / "notebooks/asking.py").write_text(
        "import numpy\n"
        "def prepare(paths, facts):\n"
        "    return numpy.array([[len(path.read_text()) * facts['scale']] * 2 for path in paths])\n"
        "def answer(output, place): return f'{place}: {output:.0f} letters'\n"
    )
    champion("return model_input.sum(1)", numpy.zeros((3, 2)), numpy.zeros(3), metadata={"scale": 0.5})
    contract(here, "hooks: {prepare: asking:prepare, answer: asking:answer}\n")
    predict.predict([*asked("a.txt", "abc"), *asked("b.txt", "abcd")])
    assert capsys.readouterr().out == "0: 3 letters\n1: 4 letters\n"
    contract(here, "hooks: {prepare: asking:prepare}\n")
    predict.predict(asked("a.txt", "abc"))
    assert capsys.readouterr().out == "3.0\n"


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("nothing.csv", "nothing.csv is not there"),
        ("notebooks", "is a folder"),
        ("empty.csv", "is empty"),
        ("a.txt", "must be a table"),
        (None, "at least one file"),
    ],
)
def test_files_are_looked_at_before_the_store(here, name, sentence, monkeypatch):
    monkeypatch.setattr(predict, "_champion", lambda: pytest.fail("the store was asked"))
    Path("empty.csv").touch()
    Path("a.txt").write_text("x")
    with pytest.raises(UserError, match=sentence):
        predict.predict([Path(name)] if name else [])


def test_a_pickle_is_not_loaded_unless_the_project_trusts_it(here, monkeypatch, capsys):
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    mlflow.sklearn.save_model(
        model,
        here / "models/line",
        serialization_format="cloudpickle",
        pip_requirements=[],
        signature=infer_signature(pandas.DataFrame({"x": [1.0]}), numpy.zeros(1)),
    )
    (here / "metrics").mkdir()
    (here / "metrics/compare.json").write_text('{"champion": "line"}')
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    contract(here, "compare: compare\n")
    with pytest.raises(UserError, match="pickle: true in project.yaml"):
        predict.predict(asked("a.csv", "x\n3\n"))
    monkeypatch.delenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION")
    contract(here, "compare: compare\npickle: true\n")
    predict.predict(asked("a.csv", "x\n3\n"))
    assert "has no champion yet. models/line of this folder is asked instead." in capsys.readouterr().err
    (here / "metrics/compare.json").unlink()
    with pytest.raises(UserError, match="has no champion yet; nbproof run"):
        predict.predict(asked("a.csv", "x\n3\n"))
