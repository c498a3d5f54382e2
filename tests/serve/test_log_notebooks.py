"""`nbproof drift` and `nbproof harvest`: exit codes, pages, and versions of data/collected."""

import json
import shutil

import pytest
from projects import dvc, nbproof, notebook, project

from nbproof.notebook.files import digest

FIRST = "import json\n\nfrom nbproof.notebook import output_folder, write"
COLLECTS = """\
(output_folder('data/collected') / 'cases.csv').write_text({text!r})
_ = write('reports/harvest.json', json.dumps({{'cases': 2, 'new': {new}}}))"""
ALARMS = "print('looked')\n_ = write('reports/drift.json', json.dumps({{'alarms': {}}}))"
YAML = """\
name: tiny
metric: {key: error, goal: min}
serve: {drift: notebooks/drift.ipynb, harvest: notebooks/harvest.ipynb}
"""


@pytest.fixture
def folder(tmp_path):
    """A project with a log (of nothing) and two notebooks, which do nothing yet."""
    for name in ("drift", "harvest"):
        notebook(tmp_path / f"project/notebooks/{name}.ipynb", "#!# A title\n\n> look", FIRST)
    made = project(tmp_path / "project", project_yaml=YAML, dvc_yaml="stages: {}\n")
    (made / "served").mkdir()
    (made / "served/log.sqlite").touch()
    return made


def run(folder, name: str, cell: str, *words: str):
    notebook(folder / f"notebooks/{name}.ipynb", "#!# A title\n\n> look", FIRST, cell)
    return nbproof(folder, name, *words)


def kept(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "data").rglob("*") if path.is_file()}


def test_drift_ends_with_its_verdict_and_publishes_nothing(folder):
    for cell, code, line in (
            (ALARMS.format([]), 0, "drift: no alarm -> scratch/drift/drift.html\n"),
            (ALARMS.format(["slow", "odd"]), 3, "drift: alarm: slow; odd -> scratch/drift/drift."),
            ("raise ValueError('no features')", 1, "ValueError: no features"),
            ("_ = 1", 1, "No such file or directory")):
        done = run(folder, "drift", cell)
        assert done.returncode == code and line in done.stdout, done.stdout
        if "looked" in cell:
            assert "looked" in (folder / "scratch/drift/drift.html").read_text()
    assert not (folder / "reports").exists(), "people's drawings are no report"
    (folder / "served/log.sqlite").unlink()
    assert "There is no log served/log.sqlite yet" in nbproof(folder, "drift").stdout
    (folder / "project.yaml").write_text(YAML.replace("drift: notebooks/drift.ipynb, ", ""))
    done = nbproof(folder, "drift")
    assert done.returncode == 2 and "This project has no notebook for nbproof drift" in done.stdout


def test_harvest_keeps_versions_by_dvc_after_a_yes(folder):
    asked = run(folder, "harvest", COLLECTS.format(text="a", new=1))
    assert asked.returncode == 1 and "Look through scratch/harvest" in asked.stdout, asked.stdout
    assert kept(folder) == {}
    done = nbproof(folder, "harvest", "--yes")
    assert done.returncode == 0 and "harvest: 1 new, 2 in all" in done.stdout, done.stdout
    version = json.loads((folder / "data/collected.json").read_text())
    assert version == {"cases": 2, "digest": digest(folder / "data/collected")}
    first = kept(folder)
    assert run(folder, "harvest", COLLECTS.format(text="b", new=0), "--yes").returncode == 0
    assert run(folder, "harvest", "raise ValueError('no image')", "--yes").returncode == 1
    assert kept(folder) == first, "nothing new, or nothing right"
    assert run(folder, "harvest", COLLECTS.format(text="b", new=1), "--yes").returncode == 0
    assert (folder / "data/collected/cases.csv").read_text() == "b"
    (folder / "data/collected.dvc").write_bytes(first["collected.dvc"])
    assert dvc(folder, "checkout", "-q", "data/collected.dvc").returncode == 0
    assert (folder / "data/collected/cases.csv").read_text() == "a"


def test_a_harvest_that_is_cut_is_completed_by_the_next_and_loses_nothing(folder):
    assert run(folder, "harvest", COLLECTS.format(text="a", new=1), "--yes").returncode == 0
    first, again = kept(folder), COLLECTS.format(text="", new=0)
    shutil.rmtree(folder / "data/collected")  # killed between the old folder and the new one
    assert run(folder, "harvest", again).returncode == 0 and kept(folder) == first
    (folder / "data/collected/cases.csv").write_text("b")  # killed before DVC had the new one
    assert run(folder, "harvest", again).returncode == 0
    assert kept(folder)["collected.dvc"] != first["collected.dvc"]
    version = json.loads((folder / "data/collected.json").read_text())
    assert version["digest"] == digest(folder / "data/collected")
