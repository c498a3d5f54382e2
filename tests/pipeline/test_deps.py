"""What dvc.yaml must list of what a notebook depends on; the sentence has the lines to add."""

import pytest
from projects import notebook

from nbproof.notebook.errors import UserError
from nbproof.pipeline import deps
from nbproof.pipeline.dag import Stage
from nbproof.runner import RESULTS


@pytest.fixture
def folder(tmp_path, inside):
    """A project with a package, a module, pictures and pins; its notebook is written by `stage`."""
    (tmp_path / "project.yaml").write_text(
        "name: tiny\nmetric: {key: error, goal: min}\npins: pins.txt\n")
    (tmp_path / "pins.txt").write_text(f"# nbproof results: {RESULTS}\n")
    (tmp_path / "params.yaml").write_text("models: {x: {lr: 1}}\nsplit: {seed: 1}\n")
    for name in ("notebooks/tiny/cases.py", "notebooks/tiny/sub/leaf.py", "notebooks/helper.py",
                 "tools/far.py", "notebooks/map.png", "map.png", "nbproof/runner/execute.py",
                 ".venv/lib/module.py", "scratch/try.py", "models/x/code.py", "notebooks/x/own.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return inside(tmp_path)


def stage(*listed: str, sections=(), notebook="notebooks/x.ipynb") -> Stage:
    return Stage("train@x", "x", notebook, sections, (notebook, *listed), ("models/x",),
                 frozenset())


def refused(folder, *cells: str, listed=("pins.txt",), sections=()) -> str:
    """The sentence of a check of a notebook of these cells; empty where it passes."""
    notebook(folder / "notebooks" / "x.ipynb", *cells)
    try:
        deps.check(stage(*listed, sections=sections))
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("markdown, wanted", [
    ("![](map.png 'title') and <img alt=x src='../map.png'>", ["notebooks/map.png", "map.png"]),
    ("![a map](<map.png>)", ["notebooks/map.png"]),
    ("![](none.png) ![](https://example.org/map.png) ![](attachment:map.png) ![](tiny)", []),
    ("![](../../../../../../../../etc/hostname) [no picture](map.png)", []),
    (f"<img src='data:image/png;base64,{'A' * 5000}'>", []),
])
def test_pictures_in_markdown_are_dependencies(folder, markdown, wanted):
    sentence = refused(folder, f"#!{markdown}")
    assert all(f"`- {path}`" in sentence for path in wanted) and bool(sentence) == bool(wanted)
    assert refused(folder, f"print('''{markdown}''')") == ""
    assert refused(folder, f"#!{markdown}", listed=("pins.txt", *wanted)) == ""


@pytest.mark.parametrize("text", ["torch==2\n", f"x\n# nbproof results: {RESULTS + 1}\n"])
def test_pins_are_a_dependency_and_hold_the_number_of_what_shapes_results(folder, text):
    assert "add `- pins.txt` to its deps" in refused(folder, "1", listed=())
    (folder / "pins.txt").write_text(text)
    assert refused(folder, "1").startswith(
        f"pins.txt must hold the line `# nbproof results: {RESULTS}`: ")


@pytest.mark.parametrize("sections, listed", [
    (("models.x",), True), (("models",), True), ((), False), (("models.xy", "split"), False),
    (("models.x.lr",), False)])
def test_a_section_is_listed(folder, sections, listed):
    sentence = refused(folder, "P = section('models.x')", "@lr: float = P.lr", sections=sections)
    assert sentence == ("" if listed else (
        "dvc.yaml: the stage train@x does not list the section models.x, which notebooks/x.ipynb "
        "reads: add `- models.x` to its params."))
