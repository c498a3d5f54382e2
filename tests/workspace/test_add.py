"""A notebook becomes a stage by what it does, and is brought up to date by what it does later."""

import json

import pytest
from projects import command, edit_params, nbproof, notebook, project

from nbproof.workspace import entry

DVC_YAML = """\
# the pipeline
stages:
  other: # mine
    cmd: echo 1 > other.txt
    outs:
      - other.txt
"""
CELLS = ("@rate = 0.5  # [0, 1] of all\nnames = ['a']\nfolder = None",
         "from helper import H\nimport json, os\nopen('../raw.csv').read()\n"
         "open('../other.txt').read()",
         "json.dump({'rate': rate}, open('scores.json', 'w'))\nos.makedirs('made', exist_ok=True)\n"
         "for n in range(3):\n    open(f'made/{n}.txt', 'w').write(str(n))")


@pytest.fixture
def folder(tmp_path):
    made = project(tmp_path / "p", dvc_yaml=DVC_YAML, project_yaml="name: tiny\n",
                   params_yaml="# values\n{}\n")
    (made / "raw.csv").write_text("a,b\n1,2\n")
    (made / "other.txt").write_text("1\n")
    notebook(made / "notebooks" / "my Model.ipynb", *CELLS)
    (made / "notebooks" / "helper.py").write_text("H = 1\n")
    (made / "notebooks" / "new.txt").write_text("of long ago")
    command(made, "git", "add", "notebooks/new.txt")
    return made


def added(folder, *words: str, code: int = 0) -> str:
    done = nbproof(folder, "add", "notebooks/my Model.ipynb", *words)
    assert done.returncode == code, done.stdout
    return done.stdout


STAGE = """\
  my_model:
    cmd: nbproof stage
    deps:
      - notebooks/my Model.ipynb
      - notebooks/helper.py
      - other.txt
      - raw.csv
    params:
      - my_model
    outs:
      - reports/my Model.ipynb
      - notebooks/made
    metrics:
      - notebooks/scores.json:
          cache: false
"""


def test_a_notebook_becomes_a_stage_and_stays_up_to_date(folder):
    added(folder, code=1)  # nobody answers
    assert (folder / "dvc.yaml").read_text() == DVC_YAML
    assert "+  my_model:" in added(folder, "--yes")
    assert (folder / "dvc.yaml").read_text() == DVC_YAML + STAGE
    values = "# values\nmy_model:\n  rate: 0.5\n  names:\n    - a\n"
    assert (folder / "params.yaml").read_text() == values
    assert "every cell ran" in nbproof(folder, "run").stdout
    edit_params(folder, lambda content: content["my_model"].update(rate=2))
    done = nbproof(folder, "run")
    assert "my_model.rate must be float, in [0, 1] (of all), found 2" in done.stdout
    edit_params(folder, lambda content: content["my_model"].update(rate=0.75))
    (folder / "dvc.yaml").write_text((folder / "dvc.yaml").read_text().replace(
        "      - raw.csv", "      - raw.csv # of the office"))
    notebook(folder / "notebooks" / "my Model.ipynb", "@rate = 0.5",
             "open('../raw.csv').read()\nopen('new.txt', 'w').close()")
    added(folder, "--yes")
    text = (folder / "dvc.yaml").read_text()
    assert "raw.csv # of the office" in text
    assert "- notebooks/new.txt:\n          cache: false" in text, "git has it: DVC refuses it"
    assert "helper" not in text and "scores" not in text and "other: # mine" in text
    assert "rate: 0.75" in (folder / "params.yaml").read_text()
    assert "names" not in (folder / "params.yaml").read_text()
    assert "every cell ran" in nbproof(folder, "run").stdout


FOREACH = """\
stages:
  odd:
    foreach: [0.1, 1.0]
    do:
      cmd: nbproof stage rate=${item}
      deps: [notebooks/odd.ipynb]
      params: [odd]
      outs: ["reports/odd@${item}.ipynb"]
"""


def test_one_notebook_runs_for_many_values(folder):
    notebook(folder / "notebooks" / "odd.ipynb", "@rate = 0.5\nn = 1", "print(rate, n)")
    (folder / "params.yaml").write_text("odd: {rate: 0.5, n: 2}\n")
    (folder / "dvc.yaml").write_text(FOREACH)
    assert nbproof(folder, "run").stdout.count("every cell ran") == 2
    assert '"0.1 2\\n"' in (folder / "reports" / "odd@0.1.ipynb").read_text()
    done = nbproof(folder, "add", "notebooks/odd.ipynb", "--yes")
    assert "odd@0.1 comes from a foreach or a matrix: edit its lists by hand" in done.stdout


def test_a_notebook_of_another_time_and_place(folder):
    """Of nbformat 4.2, without ids, with a BOM and CRLF, and with a name of letters and signs."""
    path, plain = folder / "notebooks" / "Zählung-2 (alt).ipynb", folder / "plain.ipynb"
    notebook(plain, "#!# Zählung", "print('ü')", "1")
    content = json.loads(plain.read_text())
    for cell in content["cells"]:
        del cell["id"]
    text = json.dumps(content | {"nbformat_minor": 2}, indent=1, ensure_ascii=False)
    path.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    before = path.read_bytes()
    done = nbproof(folder, "add", str(path.relative_to(folder)), "--yes")
    assert "zählung_2_alt is a stage" in done.stdout, done.stdout
    assert "every cell ran" in nbproof(folder, "run").stdout
    assert path.read_bytes() == before
    assert "Everything is up to date" in nbproof(folder, "run").stdout


@pytest.mark.parametrize("cell, sentence", [
    ("raise ImportError(\"No module named 'sklearn.x'\")", "Install scikit-learn (pip install)"),
    ("open('raw.csv')", "A notebook works in its own folder, notebooks."),
    ("n = open('count').read()\nopen('count', 'w').write(n * 2)",
     "reads notebooks/count and writes it again"),
])
def test_what_stops_a_notebook_is_said_with_what_to_do(folder, cell, sentence):
    (folder / "notebooks" / "count").write_text("1")
    notebook(folder / "notebooks" / "my Model.ipynb", cell)
    assert sentence in added(folder, "--yes", code=2)
    assert (folder / "dvc.yaml").read_text() == DVC_YAML


@pytest.mark.parametrize("name, text, kind", [
    ("a.json", {"a": {"b": 1.5}, "c": "words"}, "metrics"), ("a.json", {"a": "words"}, "outs"),
    ("a.json", [1], "outs"), ("a.txt", {"a": 1}, "outs"),
    ("a.csv", "epoch,loss\n1,3\n2,2.5\n", "plots"), ("a.csv", "x,y\n2,1\n1,2\n", "outs"),
    ("a.csv", "x,y\n1,a\n2,b\n", "outs"), ("a.csv", "", "outs"), ("a.csv", "x\n1\n2\n", "outs"),
])
def test_metrics_and_curves_are_known_by_what_they_hold(folder, inside, name, text, kind):
    (inside(folder) / name).write_text(text if isinstance(text, str) else json.dumps(text))
    assert entry.described(name)[0] == kind
