"""A repository with notebooks becomes a project; no notebook is changed."""

import subprocess

import pytest
from projects import commit, nbproof, notebook

from nbproof.notebook.files import from_yaml
from nbproof.pipeline import config
from nbproof.runner import RESULTS
from nbproof.workspace import init


@pytest.fixture
def folder(tmp_path, inside):
    """A folder with a notebook that imports NumPy, and files that name packages, not all here."""
    made = tmp_path / "My Churn-2"
    notebook(made / "notebooks/a b.ipynb", "import numpy as np\n%matplotlib inline", "import q_")
    (made / "notebooks" / "q_.py").write_text("import pandas\n")
    (made / "requirements.txt").write_text("rich>=1  # words\n-e .\nno-such-package==1\n")
    (made / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["typer[all]"]\n')
    (made / "environment.yml").write_text(
        "dependencies:\n  - filelock=3\n  - pip:\n    - mlflow==3\n    - git+https://x.y/z\n")
    return inside(made)


def test_a_folder_becomes_a_project(folder, capsys):
    before = (folder / "notebooks/a b.ipynb").read_bytes()
    assert init.init(dry_run=True) == 0
    assert not (folder / "project.yaml").exists() and not (folder / ".git").exists()
    planned = capsys.readouterr().out
    assert planned.startswith("git init: ")
    assert "--- project.yaml" in planned and "name: my_churn_2" in planned
    assert init.init(dry_run=False) == 0
    output = capsys.readouterr().out
    assert output.startswith("git init: ") and "Next: nbproof add 'notebooks/a b.ipynb'" in output
    assert (folder / "notebooks/a b.ipynb").read_bytes() == before and (folder / ".git").is_dir()
    lock = (folder / "requirements/results.txt").read_text()
    assert lock.startswith(f"# nbproof results: {RESULTS}\n")
    # The fourth is of the third, and the next three are of the other files.
    for name in ("numpy", "pandas", "rich", "pygments", "typer", "filelock", "mlflow", "nbclient"):
        assert f"\n{name}==" in lock
    project = config.read(folder)
    assert project.metric.key == "" and project.pins == "requirements/results.txt"
    commit(folder)
    assert nbproof(folder, "run").stdout.startswith("Everything is up to date.")
    assert nbproof(folder, "init").stdout.endswith("nbproof add NOTEBOOK makes a stage.\n")


def test_what_is_there_stays_and_github_gets_its_workflows(folder, monkeypatch):
    monkeypatch.setattr(init, "origin", lambda: ("", 40 * "a", "https://github.com/them/nbproof"))
    (folder / "params.yaml").write_text("mine: 1\n")
    (folder / ".gitignore").write_text("*.log")
    subprocess.run(["git", "init", "-q"], check=True)
    assert ".github/workflows/report.yml" not in init.contents(folder)
    subprocess.run(["git", "remote", "add", "origin", "git@github.com:me/churn.git"], check=True)
    files = init.contents(folder)
    job = from_yaml(files[".github/workflows/report.yml"])["jobs"]["review"]
    assert job["uses"] == f"them/nbproof/.github/workflows/report.yml@{40 * 'a'}"
    assert job["secrets"]["DVC_READ_USER"] == "${{ secrets.DVC_READ_USER }}"
    assert f"git+https://github.com/them/nbproof@{40 * 'a'}'" in files["Makefile"]
    assert "params.yaml" not in files and files[".gitignore"].startswith("*.log\n/.venv/\n")
    assert files[".gitattributes"].splitlines()[1] == "dvc.lock merge=nbproof-lock"


def test_where_there_is_nothing_to_begin_with(tmp_path):
    done = nbproof(tmp_path, "init")
    assert done.returncode == 2 and "nbproof new DIR makes a project" in done.stdout
    assert list(tmp_path.iterdir()) == []
