"""`nbproof new`: a project of the template, from a clone and from an installed package."""

import re
import subprocess
import warnings
from pathlib import Path

import copier
import pytest
from projects import commit, copy_of_project

from nbproof.notebook.errors import UserError
from nbproof.pipeline import config
from nbproof.runner import RESULTS
from nbproof.workspace import new, pins


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone of nbproof, everything committed."""
    return copy_of_project(tmp_path_factory.mktemp("home") / "nbproof")


@pytest.fixture
def home(clone, monkeypatch) -> Path:
    monkeypatch.setattr(new, "HOME", clone)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.org")
    return clone


@pytest.fixture
def unlocked(monkeypatch) -> None:
    """Packages stay as the template has them: to lock them takes a minute and a registry."""
    monkeypatch.setattr(new, "lock", lambda folder: None)


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_project_is_whole_locked_and_committed(home, tmp_path):
    folder = tmp_path / "My wines"
    assert new.new(folder) == 0
    assert git(folder, "status", "--porcelain") == ""
    made = config.read(folder)
    assert made.name == "my_wines" and (folder / "notebooks/my_wines/table.py").exists()
    assert not [path for path in folder.rglob("*") if "{{" in path.name or path.suffix == ".jinja"]
    line = f"@ git+{home.as_uri()}@{git(home, 'rev-parse', 'HEAD')}\n"
    locked = (folder / "requirements.txt").read_text()
    assert f"nbproof {line}" in locked and "\ntorch==" not in locked
    own = set(re.findall(r"^([a-z0-9-]+==\S+)", (home / "requirements.txt").read_text(), re.M))
    found = set(re.findall(r"^([a-z0-9-]+==\S+)", locked, re.M))
    assert found and len(found - own) <= 2, found - own  # skops, and what it brings along
    for path in (folder / "requirements").iterdir():
        pinned = path.read_text().replace("\\\n", " ").splitlines()
        rest = [pin for pin in pinned if "--hash=sha256:" not in pin]
        itself = [f"nbproof {line}"[:-1]]
        expected = {"serve": itself, "review": itself, "results": [f"# nbproof results: {RESULTS}"]}
        assert rest == expected.get(path.stem, []), path
    assert (folder / "requirements" / "review.txt").exists()  # what NBPROOF_REVIEW installs


def test_what_cannot_be_locked_leaves_no_folder(home, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[dependency-groups]\nrun = ["a", "a<0", "a>1"]\n')
    monkeypatch.setattr(new, "lock", lambda folder: pins.lock(tmp_path))
    with pytest.raises(UserError, match="uv could not lock the group run"):
        new.new(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_git_without_an_identity_and_inside_of_a_repository(
        home, tmp_path, unlocked, monkeypatch, capsys):
    monkeypatch.setenv("GIT_COMMITTER_NAME", "")
    new.new(tmp_path / "mine")
    assert "mine is committed yet, for git does not know you: " in capsys.readouterr().out
    new.new(tmp_path / "mine" / "part")
    assert f"is a part of the repository {tmp_path / 'mine'}" in capsys.readouterr().out
    assert not (tmp_path / "mine" / "part" / ".git").exists()


@pytest.mark.parametrize("name", [
    "numpy", "test", "random", "statistics", "class", "2024-churn", "Énergie-2", ""])
def test_a_name_that_is_no_package_hides_a_module_or_is_taken_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="is there already" if not name else "cannot be called"):
        new.new(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("remote", "expected"), [
    ("git@github.com:me/nbproof.git", "ssh://git@github.com/me/nbproof.git"),
    ("https://me:token@github.com/me/nbproof", "https://github.com/me/nbproof"),
    ("ssh://git@host:22/me/nbproof", "ssh://git@host:22/me/nbproof"),
    ("../of/a person", "FOLDER/of/a%20person"),
])
def test_an_address_can_be_installed(tmp_path, monkeypatch, remote, expected):
    monkeypatch.setattr(new, "HOME", tmp_path / "clone")
    assert new.address(remote) == expected.replace("FOLDER", tmp_path.as_uri())


def test_a_commit_that_is_pushed_is_known_by_the_address_of_the_remote(home, tmp_path, monkeypatch):
    git(tmp_path, "clone", "--quiet", str(home), "second")
    monkeypatch.setattr(new, "HOME", tmp_path / "second")
    assert new.origin()[2] == home.as_uri()
    commit(new.HOME)
    assert new.origin()[2] == new.HOME.as_uri(), "nobody else has this commit yet"


def test_a_package_knows_where_it_was_installed_from(tmp_path, monkeypatch):
    noted = ['{"url": "https://example.org/n.git", "vcs_info": {"commit_id": "abc"}}', None]
    package = type("Package", (), {"read_text": lambda self, name: noted.pop(0)})
    monkeypatch.setattr(new, "HOME", tmp_path)
    monkeypatch.setattr(new, "distribution", lambda name: package())
    assert new.origin() == ("git+https://example.org/n.git", "abc", "https://example.org/n.git")
    with pytest.raises(UserError, match="pip install 'nbproof @ git"):
        new.origin()


def test_a_later_template_is_taken_over_and_own_changes_stay(home, tmp_path, unlocked):
    folder = tmp_path / "mine"
    new.new(folder)
    for name in ("README.md", "requirements.txt"):
        (folder / name).write_text((folder / name).read_text() + "# Our own words.\n")
    commit(folder)
    theirs = home / "nbproof/workspace/template/params.yaml"
    theirs.write_text(theirs.read_text().replace("trials: 6", "trials: 7"))
    commit(home)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copier.run_update(folder, vcs_ref="HEAD", defaults=True, overwrite=True, quiet=True)
    assert "trials: 7" in (folder / "params.yaml").read_text()
    assert git(home, "rev-parse", "HEAD") in (folder / "pyproject.toml").read_text()
    changed = git(folder, "diff", "--name-only").split()
    assert {"README.md", "requirements.txt"}.isdisjoint(changed), "a lock is no template's text"
