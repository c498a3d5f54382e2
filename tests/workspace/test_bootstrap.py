"""The set-up of .venv, with a uv that only notes how it was called."""

import ast
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbproof.workspace import bootstrap

PYTHON = Path(sys.base_prefix) / "bin" / "python3"
UV = """\
#!/bin/sh
echo "$UV_DEFAULT_INDEX $@" >> "$LOG"
sleep "${SECONDS_OF_UV:-0}"
[ -z "$FAULT_OF_UV" ] || { echo "$FAULT_OF_UV" >&2; exit 1; }
"""


class Folder:
    """A project with two locks, the script, and a uv on the PATH."""

    def __init__(self, root: Path):
        self.root, self.log, self.venv = root / "a project", root / "log", root / "a project/.venv"
        self.root.mkdir()
        shutil.copy(bootstrap.__file__, self.root)
        for name in ("requirements.txt", "dev.txt"):
            (self.root / name).write_text(f"# {name}\n")
        (root / "uv").write_text(UV)
        (root / "uv").chmod(0o755)
        own = {name: value for name, value in os.environ.items() if name[:3] not in ("PIP", "UV_")}
        self.variables = own | {"PATH": f"{root}:{os.environ['PATH']}", "LOG": str(self.log)}

    def start(self, *words: str, **variables: str) -> subprocess.Popen:
        return subprocess.Popen(
            [PYTHON, "-I", "bootstrap.py", *words], cwd=self.root, env=self.variables | variables,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def call(self, *words: str, code: int = 0, **variables: str) -> str:
        with self.start(*words, **variables) as process:
            printed = process.communicate(timeout=60)[0]
        assert process.returncode == code and "Traceback" not in printed, printed
        return printed

    @property
    def calls(self) -> list[str]:
        """How uv was called."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path)


def test_locks_are_installed_once_and_again_where_one_changed(folder):
    (folder.root.parent / "pip").mkdir()
    settings = "[global]\nindex-url = https://index.example/simple\n"
    (folder.root.parent / "pip" / "pip.conf").write_text(settings)
    printed = folder.call(XDG_CONFIG_HOME=str(folder.root.parent))
    assert printed.startswith("Installing requirements.txt into .venv")
    assert folder.calls[0].startswith("https://index.example/simple pip sync")  # as pip's index is
    assert folder.calls[0].endswith("a project/.venv/bin/python requirements.txt")
    assert folder.call() == "" and len(folder.calls) == 1
    folder.call(".venv", "requirements.txt", "dev.txt")
    assert folder.call() == "" and len(folder.calls) == 2  # what the tests need stays
    (folder.venv / "own").touch()
    (folder.root / "requirements.txt").write_text("# changed\n")
    folder.call(PIP_INDEX_URL="https://other.example/simple")
    assert folder.calls[2].startswith("https://other.example/simple ")
    assert (folder.venv / "own").exists()


@pytest.mark.parametrize("note", [None, "", "FOLDER/.ven", "FOLDER/elsewhere/.venv\nSUMS"])
def test_a_half_made_or_moved_environment_is_made_again(folder, note):
    """By Debian without venv, a kill, or a full disk, which cuts the note short."""
    folder.call()
    file = folder.venv / "installed.txt"
    file.unlink() if note is None else file.write_text(note.replace("FOLDER", str(folder.root)))
    (folder.venv / "half").touch()
    folder.call()
    assert len(folder.calls) == 2 and not (folder.venv / "half").exists()


def test_a_set_up_waits_for_the_uv_of_one_that_was_killed(folder):
    begun = time.monotonic()
    killed = folder.start(SECONDS_OF_UV="2")
    while not folder.calls:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    folder.call()
    killed.communicate()
    assert time.monotonic() - begun > 2 and len(folder.calls) == 2


def test_what_failed_is_said_and_can_be_done_again(folder, tmp_path):
    folder.venv.symlink_to(tmp_path)
    assert "must be a folder: remove the link" in folder.call(code=1) and folder.calls == []
    folder.venv.unlink()
    failed = folder.call(code=1, FAULT_OF_UV="no hash of x matches")  # in uv's words
    assert "no hash of x matches\n" in failed and "Then run the same again." in failed
    folder.call()
    assert len(folder.calls) == 2


def test_an_old_python_can_read_the_script():
    ast.parse(Path(bootstrap.__file__).read_text(), feature_version=(3, 8))
