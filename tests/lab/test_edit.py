"""New models and adopted runs: what changes, and that nothing else does."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nbproof.pipeline import config
from nbproof.workspace import edit# noqa: E402
from nbproof.notebook import tracking# noqa: E402
from nbproof.notebook.errors import UserError  # noqa: E402
from nbproof.notebook.files import root  # noqa: E402
from nbproof.runner import source# noqa: E402

TEXT = """\
# values
split:
  seed: 1 # of the cases
models: # slowest first
  svm:
    lr: 0.004 # peak
    flag: true
    kind: 'auto'
    layers: [8, 4] # from the input
    steps:
      - 1 # one
      - 2
      # the end
    floor: null # no floor
    nothing:
  ridge:
    lr: 1e-3 # last

compare:
  confidence: 0.95
"""
DVC = """\
stages:
  train:
    foreach: ${models}
    do:
      cmd: nbproof stage
      deps: ["notebooks/${key}.ipynb"]
      params: ["models.${key}", split]
      outs: ["models/${key}"]
      metrics: ["metrics/${key}.json"]
  compare:
    cmd: nbproof stage
    deps: [notebooks/compare.ipynb, models]
    params: [compare]
    metrics: [metrics/compare.json]
    plots: [metrics/confusion.csv]
"""
IMPORTS = """\
from sklearn import svm
from nbproof.notebook import section, write
P = section("models.svm")
S = section("split")
"""
PARAMETERS = """\
lr: float = P.lr  # (0, 1] größe of a step
layers: list[int] = P.layers  # [1, 99] of neurons
floor: float | None = P.floor  # [0, 1] that must be reached
kind: str = P.kind  # {auto, fast}
seed: int = S.seed"""
BODY = 'net = svm.SVC(kernel="svm", name="svm")  # svm\nwrite(f"models/svm/{svm}", "svm of svm", kind=\'svm\')'


def notebook(*cells: tuple[str, str, list[str]]) -> str:
    content = [
        {
            "cell_type": kind,
            "id": f"svm-{number}",
            "metadata": {"tags": tags} if tags else {},
            "source": text,
            **({"outputs": [], "execution_count": None} if kind == "code" else {}),
        }
        for number, (kind, text, tags) in enumerate(cells)
    ]
    return source.text(
        {"cells": content, "metadata": {"kernelspec": dict(source.KERNEL)}, "nbformat": 4, "nbformat_minor": 5}
    )


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A project of two models, not run, which this process is in."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "NBPROOF_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "project.yaml").write_text("name: small\nmetric: {key: f1, goal: max}\ncompare: compare\n")
    (tmp_path / "params.yaml").write_text(TEXT)
    (tmp_path / "dvc.yaml").write_text(DVC)
    text = notebook(
        ("markdown", "# svm\n\nA story.", []),
        ("code", IMPORTS, []),
        ("code", PARAMETERS, ["parameters"]),
        ("code", BODY, []),
    )
    for name in ("svm", "ridge", "compare"):
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text(text)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    monkeypatch.chdir(tmp_path)
    root.cache_clear()
    config.load.cache_clear()
    yield tmp_path
    root.cache_clear()
    config.load.cache_clear()


def test_values_change_and_the_rest_stays_byte_for_byte():
    same = {
        "lr": 0.004,
        "flag": True,
        "kind": "auto",
        "layers": [8, 4],
        "steps": [1, 2],
        "floor": None,
        "nothing": None,
    }
    assert edit.with_values(TEXT, {f"models.svm.{name}": value for name, value in same.items()}) == TEXT
    changed = edit.with_values(
        TEXT,
        {
            "models.svm.lr": 1e-5,
            "models.svm.flag": False,
            "models.svm.kind": "a: b",
            "models.svm.layers": [8],
            "models.svm.steps": [3],
            "models.svm.floor": 0.5,
            "models.svm.nothing": ["x", None],
            "split.seed": 2,
        },
    )
    expected = (
        TEXT.replace("0.004 # peak", "1e-05 # peak").replace("flag: true", "flag: false").replace("'auto'", "'a: b'")
    )
    expected = (
        expected.replace("[8, 4]", "[8]").replace("\n      - 1 # one\n      - 2", " [3]").replace("null #", "0.5 #")
    )
    assert changed == expected.replace("nothing:", "nothing: [x, null]").replace("seed: 1", "seed: 2")
    with pytest.raises(UserError, match="no models.svm.depth"):
        edit.with_values(TEXT, {"models.svm.depth": 1})


@pytest.mark.parametrize("text, changed", [
    ("a:\n  steps:\n  - 1\n  - 2\n  b: 1\n", "a:\n  steps: [3]\n  b: 1\n"),
    ("a:\n  steps: # of it\n    # all\n    - 1\n\n    - 2 # two\n# b\n",
     "a:\n  steps: [3] # of it\n    # all # two\n# b\n"),
    ("a:\n  steps:\n    [1,\n     2]\n", "a:\n  steps:\n    [3]\n"),
    ("a: {steps: [1], b: 1}\n", "a: {steps: [3], b: 1}\n"),
    ("a:\n  steps:\n    - 1", "a:\n  steps: [3]"),
])
def test_a_list_is_replaced_wherever_it_stands(text, changed):
    assert edit.with_values(text, {"a.steps": [3]}) == changed


def test_the_last_line_may_lack_its_end():
    text = "models:\n  a:\n    n: 1\n  b:\n    n: 23"
    assert edit.with_copy(text, "models", "b", "c") == (
        "models:\n  a:\n    n: 1\n  c:\n    n: 23\n  b:\n    n: 23\n")


def test_a_copied_section_is_the_only_change():
    block = TEXT[TEXT.index("  ridge:") : TEXT.index("\ncompare:")]
    assert edit.with_copy(TEXT, "models", "ridge", "vit") == TEXT.replace(
        block, block.replace("ridge:", "vit:") + block
    )
    block = TEXT[TEXT.index("  svm:") : TEXT.index("  ridge:")]
    assert edit.with_copy(TEXT, "models", "svm", "vit") == TEXT.replace(block, block.replace("svm:", "vit:") + block)
    with pytest.raises(UserError, match="models.vit could not be written"):
        edit.with_copy("models: {svm: {lr: 1}}\n", "models", "svm", "vit")


def test_edited_parameters_read_from_params_yaml_again():
    edited = "größe: int = 7  # [1, 9] large\nlayers: list[int] = [\n  1,\n]\nseed: int = S.seed\nlr: float = 1e-2  # r"
    holders = {"P": {"größe": 1, "lr": 1}, "S": {"seed": 1, "layers": []}}
    assert edit.with_parameters_restored(edited, holders, "x") == (
        "größe: int = P.größe  # [1, 9] large\nlayers: list[int] = S.layers\nseed: int = S.seed\nlr: float = P.lr  # r"
    )
    with pytest.raises(UserError, match="2 of the sections that it reads have seed"):
        edit.with_parameters_restored("seed: int = 3", {"P": {"seed": 1}, "S": {"seed": 1}}, "x")


def test_a_new_model_has_the_name_in_strings_and_libraries_stay(here, capsys):
    assert edit.new_model("vit", "svm") == 0
    assert "notebooks/vit.ipynb and models.vit in params.yaml are made from svm" in capsys.readouterr().out
    cells = json.loads((here / "notebooks/vit.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells]
    assert code[0].startswith("# vit\n") and code[1] == IMPORTS.replace("models.svm", "models.vit")
    assert code[3] == (
        'net = svm.SVC(kernel="svm", name="vit")  # svm\nwrite(f"models/vit/{svm}", "vit of vit", kind=\'svm\')'
    )
    assert [cell["id"] for cell in cells] == ["vit-0", "vit-1", "vit-2", "vit-3"]
    assert (here / "params.yaml").read_text() == edit.with_copy(TEXT, "models", "svm", "vit")


def test_the_last_model_is_the_one_to_start_from(here, capsys):
    edit.new_model("vit")
    assert "made from ridge" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, taken",
    [
        ("svm", "notebook svm.ipynb"),
        ("split", "section of params.yaml"),
        ("train", "stage train@svm"),
        ("confusion", "metrics/confusion.csv of the stage compare"),
        ("9 lives", "letter first"),
    ],
)
def test_a_name_that_is_taken_is_refused(here, name, taken):
    with pytest.raises(UserError, match=taken):
        edit.new_model(name)
    assert (here / "params.yaml").read_text() == TEXT


def test_a_model_that_no_foreach_makes_is_no_pattern(here):
    with pytest.raises(UserError, match="no model 'compare' to start from.*makes svm, ridge"):
        edit.new_model("vit", "compare")
    (here / "dvc.yaml").write_text(DVC.replace("${models}", "[svm, ridge]").replace("key", "item"))
    with pytest.raises(UserError, match="makes none"):
        edit.new_model("vit")


def explore(values: dict) -> str:
    run = tracking.start("svm", values)
    run.finish({"f1": 0.5})
    return run.id


def test_an_exploration_is_adopted_into_each_section(here, capsys):
    path = here / "notebooks/svm.ipynb"
    original = path.read_text()
    with pytest.raises(UserError, match="no run to adopt yet"):
        edit.adopt("last", True)
    path.write_text(original.replace("= P.lr", "= 0.02").replace("= S.seed", "= 7"))
    values = {"lr": 0.02, "layers": [16, 8], "floor": None, "kind": "fast", "seed": 7}
    first = explore(values)
    with pytest.raises(UserError, match="a yes on a terminal"):
        edit.adopt("last", False)
    path.write_text(path.read_text().replace("= 0.02", "= 0.03"))
    with pytest.raises(UserError, match="says lr = 0.03, its newest finished run .* had 0.02"):
        edit.adopt("last", True)
    path.write_text(path.read_text().replace("= 0.03", "= 0.02"))
    assert edit.adopt("last", True) == 0
    said = capsys.readouterr().out
    assert (
        "-  seed: 1 # of the cases\n+  seed: 7 # of the cases" in said
        and "reads its values from params.yaml again" in said
    )
    assert path.read_text() == original
    expected = (
        TEXT.replace("0.004", "0.02")
        .replace("[8, 4]", "[16, 8]")
        .replace("'auto'", "fast")
        .replace("seed: 1", "seed: 7")
    )
    assert (here / "params.yaml").read_text() == expected
    edit.adopt("last", True)
    assert "already" in capsys.readouterr().out

    second = explore({"lr": 0.5, "layers": [1], "floor": 0.25, "kind": "auto"})  # without the shared section
    (here / "scratch/sweeps/one").mkdir(parents=True)
    (here / "scratch/sweeps/one/best.json").write_text(json.dumps({"model": "svm", "run_id": second}))
    assert edit.adopt("best", True, "svm") == 0
    assert (
        "floor: 0.25 # no floor" in (here / "params.yaml").read_text()
        and "seed: 7" in (here / "params.yaml").read_text()
    )
    with pytest.raises(UserError, match="no finished sweep of ridge"):
        edit.adopt("best", True, "ridge")
    assert edit.adopt(first, True) == 0 and (here / "params.yaml").read_text() == expected
    with pytest.raises(UserError, match="lr must be float, in .0, 1., found .3.0"):
        edit.adopt(explore({**values, "lr": 3.0}), True)
    with pytest.raises(UserError, match="has the parameters lr; its notebook now has"):
        edit.adopt(explore({"lr": 0.1}), True)
    with pytest.raises(UserError, match=rf"does not give run 'nothing'.* The newest here: .*{second} \(svm\)"):
        edit.adopt("nothing", True)
