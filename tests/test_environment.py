"""The set-up of .venv, with a uv that only notes how it was called; the Makefile's variables; the locked versions."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from projects import command, edit_params, tiny

from nbproof.workspace import bootstrap

ROOT = Path(__file__).resolve().parents[1]
PYTHON = Path(sys.base_prefix) / "bin" / "python3"
LAYERS = ["requirements-results.txt", "requirements.txt", "requirements-sweep.txt", "requirements-dev.txt",
          "requirements-serve.txt", "requirements-serve-ray.txt"]
UV = """\
#!/bin/sh
echo "${UV_TORCH_BACKEND:+$UV_TORCH_BACKEND }$UV_DEFAULT_INDEX $@" >> "$LOG"
sleep "${SECONDS_OF_UV:-0}"
exit "${CODE_OF_UV:-0}"
"""


class Folder:
    """A project with requirements, the script, and a uv on the PATH."""

    def __init__(self, root: Path, programs: Path):
        self.root, self.log = root, programs / "log"
        root.mkdir()
        shutil.copy(ROOT / "nbproof" / "environment.py", root)
        for name in ("requirements.txt", "requirements-sweep.txt", "requirements-dev.txt"):
            (root / name).write_text(f"# {name}\n")
        (programs / "uv").write_text(UV)
        (programs / "uv").chmod(0o755)
        personal = ("PIP_", "UV_", "ENGINE", "ARGS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(personal)}
        self.variables = kept | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "LOG": str(self.log)}

    def start(self, *words: str, **variables: str) -> subprocess.Popen:
        return subprocess.Popen([PYTHON, "-I", "environment.py", *words], cwd=self.root, text=True,
                                env=self.variables | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def call(self, *words: str, code: int = 0, **variables: str) -> str:
        started = self.start(*words, **variables)
        said = started.communicate(timeout=60)[0]
        assert started.returncode == code and "Traceback" not in said, said
        return said

    @property
    def calls(self) -> list[str]:
        """How uv was called."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_for_uv(self) -> None:
        ends = time.monotonic() + 30
        while not self.calls:
            assert time.monotonic() < ends
            time.sleep(0.05)


@pytest.fixture
def folder(tmp_path) -> Folder:
    (tmp_path / "programs").mkdir()
    return Folder(tmp_path / "a project", tmp_path / "programs")


def test_the_first_command_sets_up_and_the_second_one_does_nothing(folder):
    said = folder.call("setup")
    assert "Making .venv" in said and "Installing requirements.txt into .venv" in said
    assert len(folder.calls) == 1 and folder.calls[0].endswith("bin/python requirements.txt")
    assert folder.call("setup") == "" and len(folder.calls) == 1


def test_a_changed_lock_is_synced_and_what_other_commands_need_stays(folder):
    folder.call("setup", "--sweep")
    folder.call("setup")
    assert len(folder.calls) == 1, "nothing is taken away by a command that needs less"
    (folder.root / "requirements.txt").write_text("# changed\n")
    assert "Making" not in folder.call("setup")
    assert folder.calls[-1].endswith("requirements-sweep.txt requirements.txt")
    (folder.root / "requirements-sweep.txt").unlink()
    (folder.root / "requirements.txt").write_text("# changed again\n")
    folder.call("setup", "--sweep")
    assert folder.calls[-1].endswith("bin/python requirements.txt")


@pytest.mark.parametrize(("words", "engine", "expected"), [
    (["run"], "", ["requirements.txt"]),
    (["run"], "ray", ["requirements.txt", "requirements-sweep.txt"]),
    (["sweep", "tree"], "", ["requirements.txt"]),  # it adds Ray itself, once its arguments are right
    (["report", "--tests", "passed"], "", ["requirements.txt"]),
    (["tool", "--tests", "--", "pytest", "--sweep"], "", ["requirements.txt", "requirements-dev.txt"]),
    (["serve", "--port", "0"], "", ["requirements-serve.txt"]),
    (["setup", "--serve"], "ray", ["requirements-serve.txt"]),
    (["setup", "--serve", "--ray"], "", ["requirements-serve.txt", "requirements-serve-ray.txt"]),
])
def test_a_command_needs_what_it_needs(folder, monkeypatch, words, engine, expected):
    monkeypatch.setenv("ENGINE", engine)
    assert bootstrap.locks(folder.root, words) == expected


def test_a_sweep_adds_ray_once_its_arguments_are_right(folder):
    """In an environment of its own that has all that this one has, and a uv that only notes how it was called."""
    folder.call("setup")
    [packages] = (folder.root / ".venv").glob("lib/python3*/site-packages")
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    tiny(folder.root)
    edit_params(folder.root, lambda content: content.update(sweep={"near": {"trials": 2, "space": {"step": [1]}}}))
    assert "sweep.ghost is missing" in folder.call("sweep", "ghost", code=2) and len(folder.calls) == 1
    command(folder.root, "dvc", "repro", "-q", "data")
    said = folder.call("sweep", "near", code=2, RAY_ADDRESS="127.0.0.1:1")
    assert folder.calls[1].endswith("requirements-sweep.txt requirements.txt") and "cannot be reached" in said


def test_servers_have_an_environment_of_their_own(folder):
    refused = folder.call("setup", "--serve", code=1)
    assert refused.startswith("requirements-serve.txt is not here") and folder.calls == []
    (folder.root / "requirements-serve.txt").write_text("# fastapi\n")
    said = folder.call("setup", "--serve")
    assert "Making .venv-serve" in said and re.search(r"^[.]venv-serve holds \d+ MB$", said, re.M)
    assert folder.calls[-1].endswith(".venv-serve/bin/python requirements-serve.txt")
    assert not (folder.root / ".venv").exists() and folder.call("setup", "--serve") == ""
    (folder.root / "requirements-serve-ray.txt").write_text("# ray\n")
    said = folder.call("setup", "--serve", "--ray")  # a second one, so that the first stays small
    assert "Making .venv-serve-ray" in said
    assert folder.calls[-1].endswith(".venv-serve-ray/bin/python requirements-serve-ray.txt requirements-serve.txt")


def test_a_server_on_a_cluster_needs_ray(folder, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert bootstrap.locks(folder.root, ["serve"]) == ["requirements-serve.txt", "requirements-serve-ray.txt"]
    assert bootstrap.locks(folder.root, ["setup", "--serve"]) == ["requirements-serve.txt"]


def test_two_first_commands_wait_for_each_other(folder):
    first = folder.start("setup", SECONDS_OF_UV="2")
    folder.wait_for_uv()
    assert folder.call("setup").strip() == "Waiting for another set-up in this folder."
    assert first.wait(30) == 0 and len(folder.calls) == 1
    first.stdout.close()


def test_what_reviews_waits_for_what_runs(folder):
    """NBPROOF_REVIEW fills the same .venv from another lock."""
    (folder.root / "requirements-review.txt").write_text("# review\n")
    first = folder.start("setup", SECONDS_OF_UV="2")
    folder.wait_for_uv()
    assert "Waiting for another set-up in this folder." in folder.call("setup", NBPROOF_REVIEW="1")
    assert first.wait(30) == 0
    first.stdout.close()


def test_processors_alone_take_another_lock_instead_of_the_whole_one(folder):
    folder.call("setup", "--sweep")
    refused = folder.call("setup", code=1, NBPROOF_CPU="1")
    assert refused.startswith("requirements-cpu.txt is not here") and "make pins CPU=1 makes it" in refused
    (folder.root / "requirements-cpu.txt").write_text("# torch==2.15.0+cpu\n")
    folder.call("setup", NBPROOF_CPU="1")
    assert folder.calls[-1].startswith("cpu ")
    assert folder.calls[-1].endswith("requirements-cpu.txt requirements-sweep.txt")
    assert folder.call("setup", NBPROOF_CPU="1") == ""
    folder.call("setup")  # back again
    assert not folder.calls[-1].startswith("cpu ")
    assert folder.calls[-1].endswith("requirements-sweep.txt requirements.txt")


def test_a_download_without_a_repository_installs_nothing(folder):
    assert "git init makes one, then run again.\n" in folder.call("run", code=1)
    assert not (folder.root / ".venv").exists() and folder.calls == []


def test_a_set_up_that_was_killed_starts_over_when_its_uv_has_ended(folder):
    killed = folder.start("setup", SECONDS_OF_UV="2")
    folder.wait_for_uv()
    killed.kill()
    killed.wait()
    (folder.root / ".venv" / "half").touch()
    said = folder.call("setup")
    assert "Waiting for another set-up" in said and "Making .venv" in said
    assert not (folder.root / ".venv" / "half").exists()
    killed.stdout.close()


@pytest.mark.parametrize("cut", ["", "begun", "WHOLE\nrequirements.txt"])
def test_a_note_that_a_full_disk_cut_short_starts_over(folder, cut):
    folder.call("setup")
    note = folder.root / ".venv" / "held"
    note.write_text(cut.replace("WHOLE", note.read_text().splitlines()[0]))
    assert "Making .venv" in folder.call("setup") and len(note.read_text().splitlines()) == 2


def test_a_set_up_that_ended_while_python_made_the_environment_starts_over(folder):
    killed = folder.start("setup")
    assert killed.stdout.readline() == "Making .venv\n"
    killed.kill()
    killed.wait()
    killed.stdout.close()
    assert "Making .venv" in folder.call("setup") and folder.calls[-1].endswith("bin/python requirements.txt")


def test_an_environment_that_lacks_pip_starts_over(folder):
    """Debian without python3-venv leaves one behind."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder.root / ".venv")], check=True)
    (folder.root / ".venv" / "held").write_text("begun\n")
    assert "Making .venv" in folder.call("setup") and folder.call("setup") == ""


def test_a_moved_folder_gets_a_new_environment(folder):
    folder.call("setup")
    folder.root = folder.root.rename(folder.root.with_name("moved"))
    assert "Making .venv" in folder.call("setup")


def test_an_environment_that_somebody_made_is_filled_and_stays(folder):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder.root / ".venv")], check=True)
    (folder.root / ".venv" / "mine").touch()
    assert "Making" not in folder.call("setup") and (folder.root / ".venv" / "mine").exists()


def test_a_registry_that_cannot_be_reached_is_one_sentence(folder):
    said = folder.call("setup", code=1, CODE_OF_UV="2")
    assert "uv could not install the packages" in said and "Run the same command again" in said
    assert "Installing" in folder.call("setup"), "it is not taken for set up"


@pytest.mark.skipif(not list(Path(sys.base_prefix).glob("lib/python3*/site-packages/pip")), reason="no pip here")
def test_uv_uses_the_registry_that_pip_is_set_to(folder):
    folder.call("setup", PIP_INDEX_URL="https://packages.example/simple", PIP_CONFIG_FILE=os.devnull)
    assert folder.calls[0].startswith("https://packages.example/simple pip sync")


def test_where_there_is_no_uv_pip_installs_the_locked_one(folder, monkeypatch):
    monkeypatch.setattr(environment.shutil, "which", lambda name, **_: None)
    steps = []
    monkeypatch.setattr(environment, "_step", lambda command, *_, **__: steps.append(command))
    (folder.root / ".venv").mkdir()
    pin = "uv==2 \\\n    --hash=y \\\n    --hash=z"
    (folder.root / "requirements.txt").write_text(f"a==1 \\\n    --hash=x\n{pin}\nv==3\n")
    bootstrap._uv(folder.root / ".venv")
    assert "--require-hashes" in steps[0] and Path(steps[0][-1]).read_text() == pin


def test_a_tool_gets_its_words_and_args_as_they_are(folder):
    program = "import os, sys; print(sys.argv[1:], os.environ.get('ARGS'), os.environ['VIRTUAL_ENV'])"
    said = folder.call("tool", "--", "python", "-c", program, "a b", ARGS="-k 'c d' $(touch x); touch x")
    expected = f"['a b', '-k', 'c d', '$(touch', 'x);', 'touch', 'x'] None {folder.root / '.venv'}"
    assert said.splitlines()[-1] == expected
    assert not (folder.root / "x").exists()


def test_an_old_python_can_read_it_and_is_refused(monkeypatch):
    ast.parse(Path(environment.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    with pytest.raises(SystemExit, match="Python 3.11 or newer is needed"):
        bootstrap.main(["run"])


def test_it_is_no_jinja_of_its_own():
    content = Path(environment.__file__).read_text(encoding="utf-8")
    assert not re.search(r"{[{%#]", content), "the template includes it"


@pytest.mark.parametrize("makefile", ["Makefile", "nbproof/workspace/template/Makefile"])
def test_make_alone_lists_every_target_and_variables_reach_no_shell(makefile, tmp_path):
    (tmp_path / "Makefile").write_bytes((ROOT / makefile).read_bytes())
    (tmp_path / "show").write_text('#!/bin/sh\nshift 2\necho "$@ | $BASE | $ARGS"\n')
    (tmp_path / "show").chmod(0o755)
    content = (tmp_path / "Makefile").read_text()
    targets = {*re.search(r"^COMMANDS = (.*)$", content, re.M)[1].split(), *re.findall(r"^([a-z-]+):", content, re.M)}
    listed = subprocess.check_output(["make"], cwd=tmp_path, text=True)
    assert subprocess.check_output(["make", "help"], cwd=tmp_path, text=True) == listed
    assert not [each for each in targets - {"help", "locked"} if not re.search(rf"\b{each}\b", listed)]
    alone = {key: each for key, each in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    nasty = ["BASE=HEAD; touch x", "ARGS='`touch x`' $$(touch x)", "NAME=$$(touch x)", "MODEL=a;touch x"]
    for target in sorted(targets - {"help", "locked"}):
        done = subprocess.run(["make", "PYTHON=./show", target, *nasty], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 and "HEAD; touch x" in done.stdout, done.stdout + done.stderr
        assert not (tmp_path / "x").exists(), target
    asked = [subprocess.check_output(["make", "PYTHON=./show", "remote", *more], cwd=tmp_path, env=alone, text=True)
             for more in ([], ["URL="], ["URL=https://host.example/a/b"])]
    assert [line.split(" |")[0] for line in asked] == ["remote", "remote --unset", "remote"]


def pins(name: str) -> dict[str, str]:
    """Each locked package of a file with its version and marker; hashes, where there are any, in `hashed`."""
    lines = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    assert all("--hash=sha256:" in line for line in lines if line != "-e ."), name
    return {line.split("--hash")[0].strip(): line for line in lines if line != "-e ."}


def test_all_locked_versions_agree_and_name_no_registry():
    whole = set().union(*map(pins, LAYERS))
    for name in [*LAYERS, "nbproof/workspace/template/pins.txt", "nbproof/workspace/template/pins-results.txt"]:
        assert "://" not in (ROOT / name).read_text(), name
        for pin in pins(name):
            package, version = re.match(r"([a-z0-9.-]+)==(\S+)", pin).groups()
            known = {re.match(r"\S+==(\S+)", each)[1] for each in whole if each.startswith(f"{package}==")}
            assert version in known, (name, pin)
    assert "torch==2.15.0" in pins("requirements.txt")
    assert "torch" not in (ROOT / "nbproof/workspace/template/pins.txt").read_text()
