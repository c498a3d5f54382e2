"""Truth: a stage succeeds only if every cell ran to its end, and nothing goes on writing after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import ROOT, command, commit, pipeline

PARAMETERS = nbformat.v4.new_code_cell("n: int = P.n  # [0, 9] a number", metadata={"tags": ["parameters"]})
DVC_YAML = """\
stages:
  train:
    foreach: ${models}
    do:
      cmd: python -m pipeline stage
      deps: ["notebooks/${key}.ipynb"]
      params: ["models.${key}"]
      outs: ["models/${key}.txt", "reports/${key}.ipynb", "reports/${key}.html"]
"""
WRITES = "from pathlib import Path\nimport os\nPath(os.environ['OUTPUT_ROOT'], 'models', 'x.txt').write_text(f'result {n}')"


def notebook(*cells: str, tags: tuple[str, ...] = ()) -> str:
    """A notebook with `cells` behind its parameters; `tags` are for the first of them."""
    code = [nbformat.v4.new_code_cell(source) for source in cells]
    code[0].metadata["tags"] = list(tags)
    first = nbformat.v4.new_code_cell("from types import SimpleNamespace\nP = SimpleNamespace(n=0)")
    return nbformat.writes(nbformat.v4.new_notebook(cells=[first, PARAMETERS, *code]))


@pytest.fixture
def project(tmp_path) -> Path:
    """A project of one model `x`, with the real machinery and no science."""
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    for name in ("notebooks", "models", "reports"):
        (tmp_path / name).mkdir()
    (tmp_path / "params.yaml").write_text("models:\n  x:\n    n: 1\n")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    (tmp_path / ".dvcignore").write_text("__pycache__\n.gitignore\n")
    (tmp_path / "notebooks" / "x.ipynb").write_text(notebook(WRITES))
    commit(tmp_path, "init", "-q")
    assert command(tmp_path, "dvc", "init", "-q").returncode == 0
    return tmp_path


def write(project: Path, *cells: str, **options) -> None:
    (project / "notebooks" / "x.ipynb").write_text(notebook(*cells, **options))


LATER = "print('later')"


@pytest.mark.parametrize("cells, tags, error", [
    (["1 / 0", LATER], (), "ZeroDivisionError: division by zero"),
    (["import os\nos.kill(os.getpid(), 9)", LATER], (), "DeadKernelError: the kernel died"),
    (["import os\nos._exit(0)"], (), "DeadKernelError: the kernel died"),
    (["import time\ntime.sleep(60)", LATER], (), "CellTimeoutError: "),
    (["import sys\nsys.exit(0)", LATER], (), "SystemExit: 0"),
    (["1 / 0", LATER], ("raises-exception",), "ZeroDivisionError: division by zero"),
], ids=["raised", "killed", "os._exit", "timeout", "sys.exit(0)", "raises-exception"])
def test_a_cell_that_does_not_end_fails_the_stage(project, cells, tags, error):
    write(project, *cells, tags=tags)
    done = pipeline(project, "stage", "x", CELL_TIMEOUT="4")
    assert done.returncode == 1, done.stdout
    last = done.stdout.rstrip().splitlines()[-1]
    assert last.startswith("x: notebooks/x.ipynb failed at cell ") and error in last
    executed = nbformat.read(project / "reports" / "x.ipynb", as_version=4)
    failed = executed.metadata["failure"]["cell"] - 1
    assert executed.cells[failed].source == cells[0]
    assert "error" in [output.output_type for output in executed.cells[failed].outputs]
    assert all(cell.execution_count is None and not cell.outputs for cell in executed.cells[failed + 1 :])
    page = (project / "reports" / "x.html").read_text(encoding="utf-8")
    assert f"Failed at cell {failed + 1}." in page and "later\n" not in page


@pytest.mark.parametrize("leave", ["exit()", "quit()"])
def test_asking_to_leave_fails_the_stage(project, leave):
    """IPython's exit() raises nothing: the kernel ends a moment later, in whatever cell it is by then. It is this cell that is named."""
    write(project, leave, LATER)
    done = pipeline(project, "stage", "x")
    last = done.stdout.rstrip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith(f"x: notebooks/x.ipynb failed at cell 4 ({leave}): KernelExit: "), done.stdout
    later = nbformat.read(project / "reports" / "x.ipynb", as_version=4).cells[-1]
    assert later.execution_count is None and not later.outputs
    assert "Failed at cell 4." in (project / "reports" / "x.html").read_text(encoding="utf-8")


def test_a_cell_tagged_to_be_skipped_is_run(project):
    write(project, "1 / 0", tags=("skip-execution",))
    done = pipeline(project, "stage", "x")
    assert done.returncode == 1 and "ZeroDivisionError" in done.stdout


def test_dvc_and_run_tell_the_failure(project):
    write(project, "1 / 0")
    repro = command(project, "dvc", "repro")
    assert repro.returncode != 0 and "x: notebooks/x.ipynb failed at cell 4 (1 / 0): ZeroDivisionError" in repro.stdout
    run = pipeline(project, "run")
    assert run.returncode == 1 and run.stdout.splitlines()[-1].startswith("x: notebooks/x.ipynb failed at cell 4"), run.stdout


@pytest.mark.parametrize("content, told", [
    ("{", "is not a notebook: "),
    ('{"cells": [], "nbformat": 3, "nbformat_minor": 0, "metadata": {}}', "is not a notebook of format 4"),
    ('{"cells": [{"cell_type": "code", "source": "1"}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "cell 1 lacks its type, metadata or source"),
    ('{"cells": [], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "must have one cell tagged `parameters`"),
], ids=["no JSON", "old", "half a cell", "no parameters"])
def test_a_broken_notebook_is_refused_in_one_sentence(project, content, told):
    (project / "notebooks" / "x.ipynb").write_text(content)
    done = pipeline(project, "stage", "x")
    assert done.returncode == 2 and done.stdout.count("\n") == 1 and told in done.stdout, done.stdout


@pytest.mark.parametrize("given", ["soon", "0", "nan"])
def test_a_timeout_that_is_none_is_refused(project, given):
    done = pipeline(project, "stage", "x", CELL_TIMEOUT=given)
    assert done.returncode == 2 and done.stdout == f"CELL_TIMEOUT must be a number of seconds above 0, found '{given}'.\n"


@pytest.mark.parametrize("words", ["run", "verify"])
def test_a_lock_file_with_a_merge_conflict_is_named(project, words):
    (project / "dvc.lock").write_text("<<<<<<< HEAD\nschema: '2.0'\n=======\n>>>>>>> other\n")
    done = pipeline(project, words)
    assert done.returncode == 2 and done.stdout.count("\n") == 1 and "dvc.lock" in done.stdout, done.stdout


def test_checkout_brings_the_last_good_result_back(project):
    assert pipeline(project, "run").returncode == 0
    good = {path: path.read_bytes() for path in [project / "models" / "x.txt", project / "reports" / "x.ipynb", project / "reports" / "x.html"]}
    write(project, WRITES, "raise ValueError('bad day')")
    assert command(project, "dvc", "repro").returncode != 0
    assert command(project, "dvc", "checkout", "--force").returncode == 0
    assert {path: path.read_bytes() for path in good} == good


def test_a_full_disk_leaves_no_torso(project):
    """Files may not grow past 4 KiB, as on a disk with no room."""
    write(project, "print('x' * 20000)")
    done = command(project, "bash", "-c", f"ulimit -f 4; exec {sys.executable} -m pipeline stage x")
    assert done.returncode not in (0, None) and "Traceback" not in done.stdout, done.stdout
    assert "x" in done.stdout and len(done.stdout.strip().splitlines()[-1]) < 400
    assert not [path for path in (project / "reports").iterdir() if path.suffix in (".ipynb", ".html")]


@pytest.fixture
def small_disk(project):
    """reports/ as a disk of its own with 512 KiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(project / "reports")]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield project / "reports"
    subprocess.run(["umount", str(project / "reports")], check=True)


def test_a_full_disk_keeps_what_was_good(project, small_disk):
    assert pipeline(project, "run").returncode == 0
    good = {path: path.read_bytes() for path in [small_disk / "x.ipynb", small_disk / "x.html", project / "models" / "x.txt"]}
    write(project, WRITES.replace("result", "new result"), "print('x' * 1_000_000)")
    for words in ((sys.executable, "-m", "pipeline", "run"), ("dvc", "repro")):
        done = command(project, *words)
        assert done.returncode != 0 and "Traceback" not in done.stdout, done.stdout
        assert "x: its reports could not be written (No space left on device)" in done.stdout
        assert not [path for path in small_disk.iterdir() if path.name != ".gitignore"]  # no torso
    done = pipeline(project, "run")
    assert "its reports could not be written" in done.stdout.splitlines()[-1], done.stdout
    assert command(project, "dvc", "checkout", "--force").returncode == 0
    assert {path: path.read_bytes() for path in good} == good


def test_no_room_for_dvc_is_one_sentence(project):
    done = command(project, "bash", "-c", f"ulimit -f 4; exec {sys.executable} -m pipeline run")
    assert done.returncode == 2 and done.stdout.startswith("DVC cannot keep its notes") and done.stdout.count("\n") == 1, done.stdout


def family(project: Path) -> list[psutil.Process]:
    """Every living process that works in the project's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(project) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def as_from_a_terminal() -> None:
    """Ctrl-C reaches the process, also where whoever runs the tests ignores it (a shell's background job does)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


SLOW = "import time, os\nfrom pathlib import Path\nfor i in range(1000):\n    Path(os.environ['OUTPUT_ROOT'], 'beat').write_text(str(i))\n    time.sleep(0.1)"


def wait_for(condition, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("started, killed, signal_sent", [
    (["pipeline", "stage", "x"], "stage", signal.SIGKILL),
    (["dvc", "repro"], "dvc", signal.SIGKILL),
    (["pipeline", "run"], "run", signal.SIGKILL),
    (["pipeline", "run"], "run", signal.SIGTERM),
    (["pipeline", "run"], "run", signal.SIGINT),
    (["dvc", "repro"], "dvc", signal.SIGINT),
    (["dvc", "repro"], "kernel", signal.SIGKILL),
], ids=["kill stage", "kill dvc", "kill run", "end run", "interrupt run", "interrupt dvc", "kill kernel"])
def test_nothing_lives_on_after_a_kill(project, started, killed, signal_sent):
    write(project, SLOW)
    log = (project.parent / f"{project.name}.log").open("w")
    process = subprocess.Popen([sys.executable, "-m", *started], cwd=project, stdout=log, stderr=log, start_new_session=True, preexec_fn=as_from_a_terminal)
    assert wait_for((project / "beat").exists, 60), Path(log.name).read_text()
    victim = process.pid
    if killed == "kernel":
        victim = next(each.pid for each in family(project) if "kernel.py" in " ".join(each.cmdline()))
    if signal_sent == signal.SIGINT:  # a terminal sends it to the whole group
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(victim, signal_sent)
    assert wait_for(lambda: process.poll() is not None, 30)
    assert process.returncode != 0
    assert wait_for(lambda: not family(project), 10), [each.cmdline() for each in family(project)]
    beat = (project / "beat").read_text()
    time.sleep(0.5)
    assert (project / "beat").read_text() == beat
    write(project, WRITES)
    again = pipeline(project, "run")
    assert again.returncode == 0 and (project / "models" / "x.txt").read_text() == "result 1", again.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_an_interrupt_starts_nothing_more(project):
    """Only `run` itself is told, as by `kill -INT`; models that wait for their turn must not get it."""
    write(project, SLOW)
    for name in "yz":
        shutil.copy(project / "notebooks" / "x.ipynb", project / "notebooks" / f"{name}.ipynb")
    (project / "params.yaml").write_text("models:\n" + "".join(f"  {name}:\n    n: 1\n" for name in "xyz"))
    words = [sys.executable, "-m", "pipeline", "run", "--jobs", "1"]
    process = subprocess.Popen(
        words, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, preexec_fn=as_from_a_terminal
    )
    assert wait_for((project / "beat").exists, 60)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 130 and said == "Interrupted.\n"
    assert wait_for(lambda: not family(project), 5), [each.cmdline() for each in family(project)]


def test_a_stage_whose_run_is_gone_does_nothing(project):
    """`run` may be killed while DVC is still about to start the stage."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    done = pipeline(project, "stage", "x", STARTED_BY=str(gone.pid))
    assert done.returncode == 2 and "has ended" in done.stdout and not (project / "models" / "x.txt").exists()


def test_verify_names_what_is_damaged(project):
    assert pipeline(project, "run").returncode == 0
    right = pipeline(project, "verify")
    assert right.returncode == 0 and right.stdout == "All 3 results are the ones that dvc.lock records.\n"
    (project / "models" / "x.txt").write_text("resulT 1")
    (project / "reports" / "x.html").unlink()
    done = pipeline(project, "verify")
    assert done.returncode == 1
    assert "models/x.txt: its bytes are not those recorded" in done.stdout and "reports/x.html: missing" in done.stdout
    assert "reports/x.ipynb" not in done.stdout


def test_verify_names_what_was_never_made(project):
    done = pipeline(project, "verify")
    assert done.returncode == 1 and done.stdout == "train@x: dvc.lock does not record its results (make run makes them)\n"


def damage_cache(project: Path, md5: str) -> Path:
    """Cut a cache file short but leave it read-only, as DVC trusts it."""
    cached = project / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    cached.chmod(0o644)
    cached.write_bytes(cached.read_bytes()[:3])
    cached.chmod(0o444)
    return cached


def md5_of(project: Path, name: str) -> str:
    import yaml

    outs = yaml.safe_load((project / "dvc.lock").read_text())["stages"]["train@x"]["outs"]
    return next(out["md5"] for out in outs if out["path"] == name)


@pytest.mark.parametrize("file_is_there", [True, False])
def test_a_damaged_cache_is_never_used(project, file_is_there):
    assert pipeline(project, "run").returncode == 0
    cached = damage_cache(project, md5_of(project, "models/x.txt"))
    assert "cache is damaged" in pipeline(project, "verify").stdout
    if not file_is_there:
        (project / "models" / "x.txt").unlink()
    done = pipeline(project, "run")
    assert done.returncode == 0 and "cache's copy of models/x.txt was damaged" in done.stdout, done.stdout
    assert (project / "models" / "x.txt").read_text() == cached.read_text() == "result 1"
    assert pipeline(project, "verify").returncode == 0


def test_a_damaged_earlier_result_is_never_used(project):
    """DVC restores what it ran before without looking at it: back to a former parameter, with that result damaged since."""
    assert pipeline(project, "run").returncode == 0
    first = md5_of(project, "models/x.txt")
    (project / "params.yaml").write_text("models:\n  x:\n    n: 2\n")
    assert pipeline(project, "run").returncode == 0 and (project / "models" / "x.txt").read_text() == "result 2"
    damage_cache(project, first)
    (project / "params.yaml").write_text("models:\n  x:\n    n: 1\n")
    done = pipeline(project, "run")
    assert done.returncode == 0 and "The cache's copy of an earlier models/x.txt was damaged and is removed." in done.stdout, done.stdout
    assert (project / "models" / "x.txt").read_text() == "result 1" and pipeline(project, "verify").returncode == 0


def test_two_runs_at_once(project):
    write(project, "import time\ntime.sleep(4)", WRITES)
    words = [sys.executable, "-m", "pipeline", "run"]
    both = [subprocess.Popen(words, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    assert "Another run is at work in this folder: wait for it to end, then run again.\n" in said
    assert pipeline(project, "run").returncode == 0 and (project / "models" / "x.txt").read_text() == "result 1"


def test_environment_of_the_person_does_not_matter(project):
    """A matplotlib backend, an IPython profile or a variable of the person's must not change what a notebook says."""
    write(project, "import os, sys\nprint(os.environ.get('MPLBACKEND', 'inline'), hash('x') == hash('x'), os.environ['PYTHONHASHSEED'])")
    assert pipeline(project, "stage", "x").returncode == 0
    first = json.loads((project / "reports" / "x.ipynb").read_text())
    assert pipeline(project, "stage", "x", MPLBACKEND="svg", PYTHONHASHSEED="77").returncode == 0
    assert json.loads((project / "reports" / "x.ipynb").read_text()) == first
