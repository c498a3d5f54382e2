"""Kernels that are forked from one process a run: the same bytes, no more and no less, and the same ends."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from projects import WRITES, cells, nbproof, notebook
from test_failures import LEFT_BEHIND, STILL, family, started, wait_for

from nbproof.pipeline import deps
from nbproof.runner import warm
from nbproof.runner import determinism, forked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no kernel is forked")
# Whose child the kernel is, in a file that is no result.
PARENT = """\
import os, pathlib
parent = pathlib.Path(f'/proc/{os.getppid()}/cmdline').read_text().replace('\\0', ' ')
_ = pathlib.Path(os.environ['NBPROOF_OUTPUT'], 'parent').write_text(parent)"""
# What a library or a cell can see of the process that it is in.
STATE = """\
import asyncio, gc, os, random, resource, signal, sys, threading, warnings
import pandas
kept = ('PWD', 'OLDPWD', 'SHLVL', '_', 'IPYTHONDIR', 'JPY_PARENT_PID', 'NBPROOF_EVENTS', 'NBPROOF_STAGE',
        'NBPROOF_STARTED_BY', 'NBPROOF_FORCE')
print({name: value for name, value in sorted(os.environ.items()) if name not in kept})
print(sys.path, len(sys.argv), sys.argv[0], sys.argv[3:], sys.orig_argv[:4], sys.flags, sys.warnoptions)
print(__name__, '__file__' in globals(), vars(sys.modules['__main__']) is globals(), os.getcwd(), hash('x'))
print(sorted(map(str, warnings.filters)))
print(type(sys.stdin), sys.stdin.fileno(), os.read(0, 1), os.isatty(1), sys.__stdout__.fileno())
print([signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)])
print(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid(), os.umask(0o22), gc.isenabled(), gc.get_threshold())
print([each for each in dir(resource) if each.startswith('RLIMIT') and resource.getrlimit(getattr(resource, each))])
print(sorted(each for each in sys.modules if each.startswith('nbproof')), get_ipython(), file=open(os.devnull, 'w'))
print(sorted(each.name for each in threading.enumerate() if 'Thread-' not in each.name))
print(len({os.readlink(f'/proc/self/fd/{each}') for each in (0, 1, 2)}), pandas.Series([1.5, 2]))"""


def parent(folder: Path) -> str:
    """The command of the process that the last kernel was a child of."""
    return (folder / "parent").read_text()


def executed(folder: Path) -> str:
    return (folder / "reports" / "x.ipynb").read_text(encoding="utf-8")


def test_a_forked_kernel_is_as_one_that_is_started(single):
    cells(single, WRITES, PARENT, STATE)
    dvc_yaml = (single / "dvc.yaml").read_text()
    (single / "dvc.yaml").write_text(dvc_yaml.replace("cmd: nbproof", "cmd: nice -n 1 nbproof"))  # so it is refused
    begun = nbproof(single, "run")
    assert begun.returncode == 0 and "nbproof.runner.warm" not in parent(single), begun.stdout
    (single / "dvc.yaml").write_text(dvc_yaml)
    first = {path: path.read_bytes() for path in (single / "reports").glob("x.*")}
    forked = nbproof(single, "run", "--force")
    assert forked.returncode == 0 and "-m nbproof.runner.warm" in parent(single), forked.stdout
    assert executed(single) == first[single / "reports" / "x.ipynb"].decode()
    assert {path: path.read_bytes() for path in first} == first


def test_kernels_draw_other_random_numbers(single):
    """Each as if it had been started alone: what nobody seeds is not the same twice."""
    cells(single, WRITES, PARENT, "import os, pathlib, random, uuid\nimport numpy\n"
          "drawn = [random.random(), numpy.random.random(), str(uuid.uuid4())]\n"
          "with pathlib.Path(os.environ['NBPROOF_OUTPUT'], 'drawn').open('a') as file:\n    print(*drawn, file=file)")
    text = (single / "notebooks" / "x.ipynb").read_text()
    (single / "notebooks" / "y.ipynb").write_text(text.replace("models.x", "models.y").replace("x.txt", "y.txt"))
    (single / "params.yaml").write_text("models:\n  x: {n: 1}\n  y: {n: 1}\n")
    done = nbproof(single, "run", "--jobs", "2")
    assert done.returncode == 0 and "-m nbproof.runner.warm" in parent(single), done.stdout
    first, second = (line.split() for line in (single / "drawn").read_text().splitlines())
    assert len(first) == 3 and not set(first) & set(second)


def warm_ones(folder: Path) -> list[psutil.Process]:
    """The warm process of the project at `folder`, its keepers and its kernels."""
    found = []
    for process in psutil.process_iter():
        try:
            if "nbproof.runner.warm" in process.cmdline() and process.environ().get("NBPROOF_OUTPUT") == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


# It holds the interpreter's lock, so that no thread beside it does anything.
BUSY = """\
import ctypes, os, pathlib
_ = pathlib.Path(os.environ['NBPROOF_OUTPUT'], 'beat').write_text(str(os.getpid()))
ctypes.PyDLL(None).sleep(100)"""


def test_a_kernel_ends_at_once_with_its_stage_and_the_warm_process_with_the_run(single):
    cells(single, BUSY)
    process = started(single, "nbproof", "run")
    assert wait_for(lambda: (single / "beat").read_text(), 5)
    kernel = psutil.Process(int((single / "beat").read_text()))
    keeper, ones = kernel.parent(), warm_ones(single)
    assert keeper in ones and keeper.parent() in ones and kernel in ones and len(ones) == 3
    stage = next(each for each in family(single) if each.cmdline()[-1:] == ["stage"])
    stage.kill()
    assert wait_for(lambda: not kernel.is_running(), 1), "no zombie either"
    assert process.wait(timeout=30) == 1 and warm_ones(single) == []


@pytest.mark.parametrize("killed", ["run", "run that imports", "warm", "keeper"])
def test_whoever_is_killed_nothing_lives_on(single, killed):
    if killed == "run that imports":
        cells(single, "import time", WRITES)
        process = subprocess.Popen([sys.executable, "-m", "nbproof", "run"], cwd=single, stdout=subprocess.PIPE)
        assert wait_for(lambda: warm_ones(single), 30)
    else:
        cells(single, LEFT_BEHIND["forked"] + STILL)
        process = started(single, "nbproof", "run")
        kernel = next(each for each in warm_ones(single) if each.cwd() != "/")
    victim = process if killed.startswith("run") else kernel.parent()
    if killed == "warm":
        victim = victim.parent()
    victim.kill()
    said = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert killed.startswith("run") or "x: notebooks/x.ipynb failed at cell 3 (import os): DeadKernelError" in said
    assert wait_for(lambda: not family(single) and not warm_ones(single), 10), warm_ones(single)
    cells(single, WRITES)
    assert nbproof(single, "run").returncode == 0


def test_where_nobody_answers_the_kernel_is_started(single, tmp_path):
    cells(single, WRITES, PARENT)
    place = tmp_path / "socket"
    assert nbproof(single, "stage", "x", NBPROOF_WARM=str(place)).returncode == 0
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))  # and nobody listens, as after the warm process was killed
        done = nbproof(single, "stage", "x", NBPROOF_WARM=str(place), NBPROOF_DEBUG="1")
    assert done.returncode == 0 and "nbproof.runner" not in done.stdout, done.stdout
    assert "The kernel is started, not forked: [Errno 111] Connection refused" in done.stdout
    assert "nbproof.runner.warm" not in parent(single) and " stage x" in parent(single)


def settings(folder: Path) -> dict[str, str]:
    return determinism.environment(folder, folder / "events")


def asked(folder: Path, **also: str) -> forked.ForkedKernel | None:
    """A kernel from the warm process."""
    command = [sys.executable, "-m", forked.MODULE, "-f", str(folder / "kernel.json"), "--log-level=CRITICAL"]
    return forked.fork(command, str(folder), settings(folder) | also)


def test_a_kernel_that_would_differ_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NBPROOF_DEBUG", "1")
    with warm.process([], settings(tmp_path)) as variables:
        monkeypatch.setenv(forked.PLACE, variables[forked.PLACE])
        assert (Path(variables[forked.PLACE]).parent.stat().st_mode & 0o777) == 0o700
        kernel = asked(tmp_path, DVC_STAGE="x")
        assert kernel.poll() is None and wait_for(lambda: psutil.Process(kernel.pid).cwd() == str(tmp_path), 5)
        kernel.send_signal(signal.SIGTERM)
        assert kernel.wait() == -signal.SIGTERM == kernel.poll()
        kernel.kill()  # nothing is left to kill
        kernel.connection.shutdown(socket.SHUT_RDWR)
        assert asked(tmp_path, MODE="fast") is None
        (tmp_path / "tornado.py").touch()
        assert asked(tmp_path) is None
        (tmp_path / "tornado.py").unlink()
        mask = os.umask(0o27)
        assert asked(tmp_path) is None
        os.umask(mask)
    said = capsys.readouterr().err.splitlines()
    assert said == ["The kernel is started, not forked: " + why for why in (
        "its environment differs (MODE)", "a file beside the notebook stands for a library (tornado)",
        "its process differs (mask)")]


LIBRARIES = {
    "plain": "", "absent": "import nowhere_at_all", "loud": "print('hello')",
    "warns": "import warnings; warnings.warn('x')",
    "asks": "from IPython import get_ipython; get_ipython()", "broken": "1 / 0",
    "device": "kept = open('/dev/full')",
    "threads": "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"}


IMPORTS = """\
import os, sys
from nbproof.runner import warm
file, told = os.open('said', os.O_RDWR | os.O_CREAT), os.dup(1)
os.dup2(file, 1), os.dup2(file, 2)
os.write(told, warm.unfit(sys.argv[1:], file).encode())"""


def with_own(folder: Path) -> dict[str, str]:
    """The variables of a kernel to which the modules in `folder` are installed ones."""
    variables = settings(folder)
    return variables | {"PYTHONPATH": os.pathsep.join([variables["PYTHONPATH"], str(folder)])}


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_would_be_another_one_in_a_kernel_is_left_out(tmp_path, name):
    """It shows something, asks whether it is in a notebook, fails, or has what no fork takes along."""
    for each, code in LIBRARIES.items():
        (tmp_path / f"{each}.py").write_text(code)
    (tmp_path / "last.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'came')!r}).touch()")
    environment = with_own(tmp_path)
    done = subprocess.run([sys.executable, "-c", IMPORTS, name, "last"], cwd=tmp_path, env=environment, text=True,
                          stdout=subprocess.PIPE, check=True)
    is_fit = name in ("plain", "absent")
    assert done.stdout == ("" if is_fit else name) and (tmp_path / "came").exists() == is_fit


def test_the_warm_process_begins_again_without_it(tmp_path, monkeypatch):
    (tmp_path / "loud.py").write_text("print('hello')")
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(f"open('{tmp_path / name}', 'a').write('.')")
    environment = with_own(tmp_path)
    with warm.process(["one", "loud", "loud:x", "two"], environment) as variables:
        monkeypatch.setenv(forked.PLACE, variables[forked.PLACE])
        kernel = forked.fork([forked.MODULE], "/", environment)
        kernel.connection.shutdown(socket.SHUT_RDWR)
        assert (tmp_path / "one").read_text() == ".." and (tmp_path / "two").read_text() == "."


def test_it_may_wait_for_the_first_kernel(tmp_path, monkeypatch):
    (tmp_path / "one.py").write_text(f"open('{tmp_path / 'came'}', 'w')")
    with warm.process(["one"], with_own(tmp_path), at_once=False) as variables:
        assert not wait_for((tmp_path / "came").exists, 4) and not warm_ones(tmp_path)
        monkeypatch.setenv(forked.PLACE, variables[forked.PLACE])
        kernel = forked.fork([forked.MODULE], "/", with_own(tmp_path))
        assert (tmp_path / "came").exists() and kernel.poll() is None
        kernel.connection.shutdown(socket.SHUT_RDWR)
    with warm.process(["one"], with_own(tmp_path), at_once=False):
        pass  # and none came


def test_what_all_notebooks_import_at_their_top_level(inside, single):
    place = inside(single) / "notebooks"
    (place / "own").mkdir()
    (place / "own" / "__init__.py").write_text("import psutil\n")
    (place / "own" / "more.py").write_text("import yaml\nfrom . import other\n\ndef late():\n    import requests\n")
    (place / "own" / "other.py").write_text("import filelock, json\n")
    notebook(place / "a.ipynb", "import yaml.loader\nfrom own import more\nimport numpy as np, nothing_of_that_name",
             "%matplotlib inline\nimport tqdm\nfrom nbproof.notebook import tracking\nif 1:\n    import rich")
    notebook(place / "b.ipynb", "from own.more import late", "import numpy.linalg",
             "from nbproof.notebook import models")
    assert deps.libraries([place / "a.ipynb"]) == [
        "yaml", "yaml.loader", "psutil", "filelock", "numpy", *dependencies.BELOW_MLFLOW]
    assert deps.libraries([place / name for name in ("a.ipynb", "b.ipynb")]) == [
        "yaml", "psutil", "filelock", "numpy", *dependencies.BELOW_MLFLOW]
    assert deps.libraries([]) == []
