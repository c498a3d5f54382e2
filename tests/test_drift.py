"""The command `drift`: its exit codes, its page, and what is refused."""

import pytest
from projects import nbproof, notebook, project

PAGE = ("#!# Drift\n\n> is it the same?", "import json\n\nfrom nbproof.notebook import write")


@pytest.fixture
def watched(tmp_path):
    """A project with a log (of nothing), and a function that gives it a notebook that ends with a cell."""
    folder = project(tmp_path / "project", dvc_yaml="stages: {}\n")
    (folder / "served").mkdir()
    (folder / "served" / "log.sqlite").touch()

    def ends_with(cell: str):
        notebook(folder / "notebooks" / "drift.ipynb", *PAGE, cell)
        return nbproof(folder, "drift")

    return folder, ends_with


@pytest.mark.parametrize("alarms, code, said", [
    ("[]", 0, "drift: no alarm -> reports/drift.html\n"),
    ("['too slow', 'too odd']", 3, "drift: alarm: too slow; too odd -> reports/drift.html\n"),
])
def test_the_exit_code_is_the_verdict(watched, alarms, code, said):
    folder, ends_with = watched
    done = ends_with(f"print('looked')\n_ = write('reports/drift.json', json.dumps({{'alarms': {alarms}}}))")
    assert (done.returncode, done.stdout) == (code, said)
    assert "looked" in (folder / "reports" / "drift.html").read_text()
    assert not (folder / "reports" / "drift.ipynb").exists()  # nbval would execute it again, and the log goes on


def test_a_failed_cell_is_no_verdict(watched):
    folder, ends_with = watched
    (folder / "reports").mkdir(exist_ok=True)
    (folder / "reports" / "drift.json").write_text('{"alarms": []}')  # of an earlier run
    done = ends_with("raise ValueError('no features')")
    assert done.returncode == 1 and "ValueError: no features" in done.stdout, done.stdout
    assert "no features" in (folder / "reports" / "drift.html").read_text()


@pytest.mark.parametrize("cell", ["_ = 1", "_ = write('reports/drift.json', 'x')",
                                  "_ = write('reports/drift.json', '{\"alarms\": [1]}')"])
def test_no_verdict_is_refused(watched, cell):
    done = watched[1](cell)
    assert done.returncode == 2 and 'must write reports/drift.json with {"alarms": [text, ...]}' in done.stdout


def test_no_log_and_no_notebook(watched):
    folder, ends_with = watched
    done = nbproof(folder, "drift")
    assert done.returncode == 2 and "This project has no notebooks/drift.ipynb" in done.stdout
    (folder / "served" / "log.sqlite").unlink()
    done = ends_with("_ = 1")
    assert done.returncode == 2 and "There is no log served/log.sqlite yet" in done.stdout
