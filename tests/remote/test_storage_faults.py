"""The DVC remote full, read-only, cut off, damaged: nothing damaged is used, the next push or pull does the rest."""

import os
import subprocess

import pytest
import servers
from small import Clone, bare_project


@pytest.fixture
def project(tmp_path, http_store) -> Clone:
    """The commands and five tracked files, with the HTTP store as remote and its password where git does not look."""
    clone = bare_project(tmp_path / "project", {})
    root = clone.root
    for number in range(5):
        (root / f"file{number}").write_bytes(os.urandom(100_000))
        clone.dvc("add", "-q", f"file{number}")
    clone.nbproof("remote", "--data", http_store.address, code=None)
    sign_in(clone, http_store)
    clone.commit("tracked")
    return clone


def sign_in(clone: Clone, http_store) -> None:
    for key, value in (("auth", "basic"), ("user", servers.USER), ("password", http_store.password)):
        clone.dvc("remote", "modify", "--local", "origin", key, value)


def second(project: Clone, http_store, folder) -> Clone:
    subprocess.run(["git", "clone", "-q", str(project.root), str(folder)], check=True)
    clone = Clone(folder, {})
    sign_in(clone, http_store)
    return clone


def stored(http_store) -> list:
    return sorted(path for path in http_store.folder.rglob("*") if path.is_file() and not path.name.endswith(".part"))


@pytest.mark.parametrize(
    "trouble, sentence", [("full", "it is full"), ("read-only", "it can only be read"), ("cut", "no answer")]
)
def test_a_push_that_fails_is_completed_by_the_next(trouble, sentence, project, http_store, tmp_path):
    http_store.trouble, http_store.cut_after = trouble, 30_000
    said = project.nbproof("push", code=1)
    assert (
        f"Not everything reached the DVC remote {http_store.address}: {sentence}" in said
        and len(said.strip().splitlines()) == 1
    )
    assert stored(http_store) == []
    http_store.trouble = ""
    project.nbproof("push")
    assert len(stored(http_store)) == 5
    clone = second(project, http_store, tmp_path / "second")
    clone.nbproof("pull")
    assert [(clone.root / f"file{n}").read_bytes() for n in range(5)] == [
        (project.root / f"file{n}").read_bytes() for n in range(5)
    ]


def test_a_slow_remote_is_waited_for(project, http_store, tmp_path):
    http_store.trouble = "slow"
    project.nbproof("push")
    second(project, http_store, tmp_path / "second").nbproof("pull")
    assert (
        len(stored(http_store)) == 5
        and (tmp_path / "second/file4").read_bytes() == (project.root / "file4").read_bytes()
    )


def test_a_pull_that_is_cut_is_completed_by_the_next(project, http_store, tmp_path):
    project.nbproof("push")
    clone = second(project, http_store, tmp_path / "second")
    http_store.trouble, http_store.cut_after = "cut", 30_000
    said = clone.nbproof("pull", code=1)
    assert (
        f"Not everything came from the DVC remote {http_store.address}: " in said
        and "nbproof pull again does the rest" in said
    )
    assert not list(clone.root.glob("file[0-9]")), "half a file is no file"
    http_store.trouble = ""
    clone.nbproof("pull")
    assert [(clone.root / f"file{n}").read_bytes() for n in range(5)] == [
        (project.root / f"file{n}").read_bytes() for n in range(5)
    ]


def test_a_damaged_file_of_the_remote_is_not_taken(project, http_store, tmp_path):
    project.nbproof("push")
    damaged = stored(http_store)[0]
    damaged.write_bytes(b"altered" + damaged.read_bytes()[7:])
    clone = second(project, http_store, tmp_path / "second")
    said = clone.nbproof("pull", code=1)
    assert "Not everything came from" in said
    whole = {(project.root / f"file{n}").read_bytes() for n in range(5)}
    came = [path.read_bytes() for path in clone.root.glob("file[0-9]")]
    assert len(came) <= 4 and set(came) <= whole, "what came is right"
    damaged.unlink()
    project.nbproof("push")
    clone.nbproof("pull")
    assert {path.read_bytes() for path in clone.root.glob("file[0-9]")} == whole


def test_a_wrong_password_is_said(project, http_store):
    project.dvc("remote", "modify", "--local", "origin", "password", "wrong")
    assert "user, password or token are wrong or missing" in project.nbproof("push", code=1)
    assert "user, password or token are wrong or missing" in project.nbproof("remote", code=1)
    assert stored(http_store) == []


def test_a_remote_that_is_not_there_is_said(project):
    assert "no answer" in project.nbproof("remote", "--data", f"http://127.0.0.1:{servers.free_port()}", code=1)
    assert "No DVC remote is set" in (project.nbproof("remote", "--unset") and project.nbproof("push", code=2))
