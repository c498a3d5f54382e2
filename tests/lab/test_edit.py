"""New models and adopted explorations: what changes, and that nothing else does."""

import json

import nbformat
import pytest

from pipeline import Refused, edit

TEXT = """\
# values
data:
  source: mnist # or digits

models: # slowest first
  net:
    lr: 0.004 # peak
    shift: 1
    flag: true
    device: 'auto'
  linear:
    lr: 1e-3

compare:
  confidence: 0.95
"""


def test_values_change_and_the_rest_stays_byte_for_byte():
    assert edit.with_values(TEXT, "models.net", {"lr": 0.004, "shift": 1.0, "flag": True, "device": "auto"}) == TEXT
    changed = edit.with_values(TEXT, "models.net", {"lr": 0.005, "flag": False, "device": "cpu"})
    expected = TEXT.replace("0.004 # peak", "0.005 # peak").replace("flag: true", "flag: false")
    assert changed == expected.replace("'auto'", "'cpu'")
    assert edit.with_values(TEXT, "data", {"source": "digits"}) == TEXT.replace("source: mnist #", "source: digits #")


def test_a_copied_section_is_the_only_change():
    block = TEXT[TEXT.index("  net:") : TEXT.index("  linear:")]
    assert edit.with_copy(TEXT, "net", "vit") == TEXT.replace(block, block.replace("net:", "vit:") + block)
    assert edit.with_copy(TEXT, "linear", "vit") == TEXT.replace("  linear:", "  vit:\n    lr: 1e-3\n  linear:")
    with pytest.raises(Refused, match="models.net could not be copied"):
        edit.with_copy("models: {net: {lr: 1}}\n", "net", "vit")


def test_edited_parameters_read_from_params_yaml_again():
    edited = "größe: int = 7  # [1, 9] how large\nlr: float = 1e-2  # (0, 1] rate\nname: str = P.name  # its name"
    assert edit.with_parameters_restored(edited) == (
        "größe: int = P.größe  # [1, 9] how large\nlr: float = P.lr  # (0, 1] rate\nname: str = P.name  # its name"
    )


def test_a_model_more_and_a_model_less_leaves_no_trace(project):
    lock, before = (project.root / "dvc.lock").read_bytes(), (project.root / "params.yaml").read_bytes()
    assert "is taken" in project.pipeline("model", "cnn", code=2)
    assert "letter first" in project.pipeline("model", "9 lives", code=2)
    assert "vit.ipynb" in project.pipeline("model", "vit")
    said = project.pipeline("run")
    assert "vit: every cell ran" in said and "compare: every cell ran" in said
    assert "mlp: " not in said and "cnn: " not in said and "linear: " not in said, "only what is new was trained"
    ours, pattern = (json.loads((project.root / f"metrics/{name}.json").read_text()) for name in ("vit", "mlp"))
    assert ours == pattern, "so far it is the same net"
    (project.root / "notebooks/vit.ipynb").unlink()
    (project.root / "params.yaml").write_bytes(before)
    project.pipeline("run")
    assert project.git("status", "--porcelain") == ""
    assert (project.root / "dvc.lock").read_bytes() == lock
    assert not [path for path in project.root.rglob("vit.*") if not {".git", ".dvc"} & set(path.parts)]


def test_an_exploration_is_adopted(project):
    """Change a value in the cell, run, adopt: params.yaml has it, the cell reads it, and only that model and the comparison run."""
    notebook, params = project.root / "notebooks/linear.ipynb", project.root / "params.yaml"
    assert "no run to adopt" in project.pipeline("adopt", "last", code=2) or (project.root / "mlflow.db").exists()
    original = notebook.read_text(encoding="utf-8")
    notebook.write_text(original.replace('"epochs: int = P.epochs ', '"epochs: int = 16 '), encoding="utf-8")
    assert "make adopt RUN=last" in project.pipeline("run", code=2)
    explored = nbformat.read(notebook, as_version=4)
    code = "\n".join(cell.source for cell in explored.cells if cell.cell_type == "code")
    (project.root / "notebooks/explored.py").write_text(f"import matplotlib; matplotlib.use('agg')\n{code}\n", encoding="utf-8")
    project.call("python", "notebooks/explored.py")
    (project.root / "notebooks/explored.py").unlink()
    assert project.git("status", "--porcelain").split() == ["M", "notebooks/linear.ipynb"], "only the edited cell"
    assert "a yes on a terminal" in project.pipeline("adopt", "last", code=2)
    edited = notebook.read_text(encoding="utf-8")
    notebook.write_text(edited.replace("epochs: int = 16", "epochs: int = 17"), encoding="utf-8")
    said = project.pipeline("adopt", "last", "--yes", code=2)
    assert "says epochs = 17, its newest finished run" in said and "had 16" in said, "an edit that was not run to its end is not dropped in silence"
    notebook.write_text(edited, encoding="utf-8")
    said = project.pipeline("adopt", "last", "--yes")
    assert "-    epochs: 15" in said and "+    epochs: 16" in said
    assert notebook.read_text(encoding="utf-8") == original
    assert project.git("diff", "--numstat").split() == ["1", "1", "params.yaml"]
    assert "already" in project.pipeline("adopt", "last")
    said = project.pipeline("run")
    assert "linear: every cell ran" in said and "compare: every cell ran" in said and "cnn:" not in said and "mlp:" not in said
    assert json.loads((project.root / "metrics/linear.json").read_text())["epochs"] == 16
    project.git("checkout", "--quiet", ".")
    project.pipeline("run")
    assert project.git("status", "--porcelain") == ""
    assert "epochs: 15" in params.read_text(encoding="utf-8")
