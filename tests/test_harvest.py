"""The command `harvest`: it asks, it keeps a version by DVC, and it changes nothing where it must not."""

import json
import subprocess

import pytest
from projects import dvc, edit_params, nbproof, notebook, project

from nbproof.notebook.files import digest

KEEPS = ("folder = output_folder('data/drawn')\n"
         "_ = (folder / 'cases.csv').write_text({text!r})\n"
         "_ = write('reports/harvest.json', json.dumps({{'cases': {cases}, 'new': {new}}}))\nprint('looked')")


@pytest.fixture
def harvested(tmp_path):
    """A project with a log (of nothing), and a function: harvest with a notebook that keeps a text."""
    folder = project(tmp_path / "project", dvc_yaml="stages: {}\n")
    (folder / "served").mkdir()
    (folder / "served" / "log.sqlite").touch()

    def harvest(text: str = "a", cases: int = 2, new: int = 1, cell: str = "", *words: str):
        first = "import json\n\nfrom nbproof.notebook import output_folder, write"
        notebook(folder / "notebooks" / "harvest.ipynb", "#!# Harvest\n\n> look", first,
                 cell or KEEPS.format(text=text, cases=cases, new=new))
        return nbproof(folder, "harvest", *(words or ("--yes",)))

    return folder, harvest


def test_it_keeps_versions_by_dvc(harvested):
    folder, harvest = harvested
    done = harvest("a")
    assert done.returncode == 0 and "harvest: 1 new, 2 in all -> reports/harvest.html" in done.stdout, done.stdout
    assert "looked" in (folder / "reports" / "harvest.html").read_text()
    first = (folder / "data" / "drawn.dvc").read_text()
    kept = json.loads((folder / "data" / "drawn.json").read_text())
    assert kept == {"cases": 2, "digest": digest(folder / "data" / "drawn")}
    shown = subprocess.check_output(["git", "status", "--short", "-uall", "data"], cwd=folder, text=True)
    assert {line.split()[-1] for line in shown.splitlines()} >= {"data/drawn.dvc", "data/drawn.json"}
    assert "cases.csv" not in shown
    assert harvest("b", cases=3).returncode == 0
    assert (folder / "data" / "drawn" / "cases.csv").read_text() == "b"
    (folder / "data" / "drawn.dvc").write_text(first)  # back to the first version, as git checkout does it
    assert dvc(folder, "checkout", "-q", "data/drawn.dvc").returncode == 0
    assert (folder / "data" / "drawn" / "cases.csv").read_text() == "a"


def test_nothing_is_taken_without_a_yes_or_without_anything_new(harvested):
    folder, harvest = harvested
    assert harvest("a").returncode == 0
    before = {path.name: path.read_bytes() for path in (folder / "data").rglob("*") if path.is_file()}
    nobody = harvest("b", 2, 1, "", "--")
    assert nobody.returncode == 2 and "look through reports/harvest.html" in nobody.stdout, nobody.stdout
    nothing = harvest("b", new=0)
    assert nothing.returncode == 0 and "Nothing new: data/drawn stays as it is." in nothing.stdout
    failed = harvest(cell="raise ValueError('no image')")
    assert failed.returncode == 1 and "ValueError: no image" in failed.stdout
    for cell in ("_ = 1",
                 "_ = write('reports/harvest.json', '{\"cases\": 1, \"new\": 1}')"):
        wrong = harvest(cell=cell)
        assert wrong.returncode == 2 and "must write data/drawn and reports/harvest.json" in wrong.stdout, wrong.stdout
    assert before == {path.name: path.read_bytes() for path in (folder / "data").rglob("*") if path.is_file()}


def test_a_first_version_that_dvc_does_not_take_leaves_nothing(harvested):
    folder, harvest = harvested
    (folder / "data" / "drawn.dvc").mkdir(parents=True)  # where DVC's file should be
    done = harvest("a")
    assert done.returncode and not (folder / "data" / "drawn").exists(), done.stdout
    assert not (folder / "data" / "drawn.json").exists(), "it would name drawings that are not there"


def test_no_log_and_no_notebook(harvested):
    folder, harvest = harvested
    done = nbproof(folder, "harvest")
    assert done.returncode == 2 and "This project has no notebooks/harvest.ipynb" in done.stdout
    (folder / "served" / "log.sqlite").unlink()
    assert "There is no log served/log.sqlite yet" in harvest().stdout


def test_a_pipeline_runs_beside_it_and_verifies(finished):
    """A version that `dvc add` keeps is no stage, and no command of the pipeline stumbles over it."""
    (finished / "data" / "drawn").mkdir()
    (finished / "data" / "drawn" / "cases.csv").write_text("1")
    assert dvc(finished, "add", "-q", "data/drawn").returncode == 0
    edit_params(finished, lambda params: params["models"]["near"].update(step=3))
    done = nbproof(finished, "run", "--jobs", "2", "--no-register")
    assert done.returncode == 0 and "near: every cell ran" in done.stdout, done.stdout
    assert nbproof(finished, "verify").returncode == 0
    (finished / "data" / "drawn" / "cases.csv").write_text("2")
    damaged = nbproof(finished, "verify")
    assert damaged.returncode == 1 and "data/drawn" in damaged.stdout, damaged.stdout
