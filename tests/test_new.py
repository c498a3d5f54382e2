"""`nbproof new`: a project of the template, from a clone and from an installed package, brought up to date later."""

import re
import subprocess
import warnings
from pathlib import Path

import copier
import pytest
from projects import commit, copy_of_project

from nbproof.pipeline import config
from nbproof.workspace import new
from nbproof.notebook.errors import UserError

WHO = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone of nbproof, everything committed."""
    return copy_of_project(tmp_path_factory.mktemp("home") / "nbproof")


@pytest.fixture
def home(clone, monkeypatch) -> Path:
    monkeypatch.setattr(new, "HOME", clone)
    for name, value in WHO.items():
        monkeypatch.setenv(name, value)
    return clone


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_a_project_is_whole_and_knows_where_it_comes_from(home, tmp_path, capsys):
    folder = tmp_path / "My wines"
    assert new.new(folder) == 0 and "make run" in capsys.readouterr().out
    assert git(folder, "status", "--porcelain") == ""
    assert git(folder, "log", "--oneline").endswith("Made by nbproof new")
    made = config.read(folder)
    assert made.name == "my_wines" and made.metric.goal == "max" and (folder / "notebooks/my_wines/table.py").exists()
    line = f"nbproof @ git+{home.as_uri()}@{git(home, 'rev-parse', 'HEAD')}\n"
    for name in ("requirements.in", "requirements.txt", "requirements-results.txt"):
        assert line in (folder / name).read_text(), name
    assert (folder / "environment.py").read_bytes() == (home / "nbproof/workspace/bootstrap.py").read_bytes()
    for each in ("workflows/report.yml", "workflows/tests.yml", "actions/pages/action.yml"):
        assert (folder / ".github" / each).read_bytes() == (home / ".github" / each).read_bytes(), each
    workflows = "".join(each.read_text() for each in (folder / ".github").rglob("*.yml"))
    run = re.findall(r"run: (?:python3 (\S+)|make (\S+))", workflows)
    made = subprocess.run(["make", "help"], cwd=folder, capture_output=True, text=True).stdout
    assert all((folder / script).is_file() if script else f" {target} " in made for script, target in run), run
    assert not [path for path in folder.rglob("*") if "{{" in path.name or path.suffix == ".jinja"]
    files = [path for path in folder.rglob("*.*") if path.is_file()]
    assert not [path for path in files if "{{ name" in path.read_text(errors="replace")]
    assert "torch" not in (folder / "requirements.txt").read_text()


def test_a_folder_that_is_there_stays(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is there already"):
        new.new(tmp_path)


def test_inside_a_repository_no_other_one_is_made(home, tmp_path):
    git(tmp_path, "init", "--quiet")
    new.new(tmp_path / "part")
    assert not (tmp_path / "part" / ".git").exists() and "?? part/" in git(tmp_path, "status", "--porcelain")


def test_a_clone_that_is_pushed_is_known_by_its_address(home, tmp_path):
    assert new.origin() == (str(home), git(home, "rev-parse", "HEAD"), home.as_uri())
    git(tmp_path, "clone", "--quiet", str(home), "second")
    new.HOME = tmp_path / "second"
    assert new.origin()[2] == str(home)
    commit(new.HOME)
    assert new.origin()[2] == new.HOME.as_uri(), "nobody else has this commit yet"


def test_a_package_knows_where_it_was_installed_from(tmp_path, monkeypatch):
    monkeypatch.setattr(new, "HOME", tmp_path)
    noted = '{"url": "https://example.org/nbproof.workspace.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}'
    monkeypatch.setattr(new, "distribution", lambda name: type("Noted", (), {"read_text": lambda self, name: noted})())
    assert new.origin() == ("git+https://example.org/nbproof.workspace.git", "abc", "https://example.org/nbproof.workspace.git")
    monkeypatch.setattr(new, "distribution", lambda name: type("Noted", (), {"read_text": lambda self, name: None})())
    with pytest.raises(UserError, match="pip install 'nbproof @ git"):
        new.origin()


def test_a_later_template_is_taken_over_and_own_changes_stay(home, tmp_path):
    folder = tmp_path / "mine"
    new.new(folder)
    readme = folder / "README.md"
    readme.write_text(readme.read_text() + "\nOur own words.\n")
    commit(folder)
    ours = home / "nbproof/workspace/template/params.yaml"
    before = ours.read_text()
    ours.write_text(before.replace("# slowest first", "").replace("trials: 6", "trials: 7"))
    commit(home)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copier.run_update(folder, vcs_ref="HEAD", defaults=True, overwrite=True, quiet=True)
    assert "trials: 7" in (folder / "params.yaml").read_text() and "Our own words." in readme.read_text()
    assert git(home, "rev-parse", "HEAD") in (folder / "requirements.txt").read_text()


def test_every_pin_of_the_template_has_a_hash():
    for path in sorted((Path(new.__file__).parent / "template").glob("pins*.txt")):
        pins = path.read_text().replace("\\\n", " ").splitlines()
        assert pins and all("--hash=sha256:" in pin for pin in pins), path
