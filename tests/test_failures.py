"""Truth: a stage succeeds only if every cell ran to its end, and nothing goes on writing after a kill."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from bs4 import BeautifulSoup
from projects import WRITES, cells, command, commit, nbproof, results
from typer.testing import CliRunner

from nbproof import cli, runner
from nbproof.pipeline import dag, run
from nbproof.tracking import remotes
from nbproof.notebook.errors import UserError
from nbproof.runner import secrets, limits

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and sockets are POSIX's")
LATER = "print('later')"


def tag(folder: Path, name: str) -> None:
    """Tag the first own cell of the notebook `x`."""
    path = folder / "notebooks" / "x.ipynb"
    content = json.loads(path.read_text())
    content["cells"][2]["metadata"]["tags"] = [name]
    path.write_text(json.dumps(content))


def executed_stage(folder: Path, monkeypatch, **environment: str) -> int:
    """The exit code of the stage `x`, executed by this process."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return stage.run_stage(folder / "notebooks" / "x.ipynb")


@pytest.mark.parametrize("own, tagged, error", [
    (["1 / 0", LATER], "", "ZeroDivisionError: division by zero"),
    (["import os\nos.kill(os.getpid(), 9)", LATER], "", "DeadKernelError: the kernel died"),
    (["import os\nos._exit(0)"], "", "DeadKernelError: the kernel died"),
    (["import time\ntime.sleep(60)", LATER], "", "CellTimeoutError: "),
    (["import sys\nsys.exit(0)", LATER], "", "SystemExit: 0"),
    (["exit()", LATER], "", "KernelExit: "),  # it raises nothing: the kernel ends a moment later
    (["quit()", LATER], "", "KernelExit: "),
    (["1 / 0", LATER], "raises-exception", "ZeroDivisionError: division by zero"),
    (["1 / 0", LATER], "skip-execution", "ZeroDivisionError: division by zero"),
    (["1 +", LATER], "", "SyntaxError: "),
    (["raise ValueError('a\\nb' + 2000 * 'c')"], "", "ValueError: a b"),
    (["input('name?')", LATER], "", "StdinNotImplementedError: "),
    (["import sys\nsys.stdout.close()\nprint(1)", LATER], "", "ValueError: I/O operation on closed file"),
    pytest.param(["import os\nos.kill(os.getpid(), 19)  # SIGSTOP", LATER], "", "CellTimeoutError: ", marks=posix),
    # in one piece: filled bit by bit, two gigabytes take a busy machine longer than the cell has
    pytest.param(["import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))\n"
                  "kept = bytearray(2**35)", LATER], "", "MemoryError:",
                 marks=pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")),
])
def test_a_cell_that_does_not_end_fails_the_stage(single, inside, monkeypatch, capsys, own, tagged, error):
    cells(single, *own)
    if tagged:
        tag(single, tagged)
    assert executed_stage(inside(single), monkeypatch, CELL_TIMEOUT="4") == 1
    last = capsys.readouterr().err.rstrip().splitlines()[-1]
    assert last.startswith("x: notebooks/x.ipynb failed at cell 3 (") and error in last and len(last) < 1200
    executed = nbformat.read(single / "reports" / "x.ipynb", as_version=4)
    assert executed.metadata["failure"]["cell"] == 3 and executed.cells[3].source == own[0]
    assert "error" in [output.output_type for output in executed.cells[3].outputs]
    assert all(cell.execution_count is None and not cell.outputs for cell in executed.cells[4:])
    page = BeautifulSoup((single / "reports" / "x.html").read_text(encoding="utf-8"), "html.parser")
    link = page.select_one(".failed a")
    assert link.get_text() == "cell 3" and len(page.find_all(id=link["href"][1:])) == 1
    assert "later\n" not in page.get_text()
    assert wait_for(lambda: [each.pid for each in family(single)] == [os.getpid()], 5), "nothing lives on"


def test_what_a_notebook_says_does_nothing_to_the_terminal(single, inside, monkeypatch, capsys):
    own = ("from nbproof.notebook import progress\nprogress.say(message='going \\x1b[2Jon\\x07')\n"
           "progress.say(step=3, name='x')",  # of no known form
           "error = type('\\x1b[31mBad', (Exception,), {})  # \x1b[8m\n"
           "raise error('\\x1b]0;title\\x07 \\0 \\x9b2J \\x1b[1mend')")
    cells(single, *own)
    assert executed_stage(inside(single), monkeypatch) == 1
    said = "".join(capsys.readouterr())
    assert "x: going on\nx: step 3  name x\n" in said and "Bad: ]0;title  2J end" in said
    assert all(each.isprintable() or each == "\n" for each in said)


@pytest.mark.parametrize("own", [
    "import os\nprint('it is', os.environ['MLFLOW_TRACKING_PASSWORD'])",
    "import os\nraise ValueError(os.environ['MLFLOW_TRACKING_PASSWORD'])"])
def test_a_secret_that_a_cell_shows_is_not_kept(single, inside, monkeypatch, capsys, own):
    cells(single, WRITES, own)
    secret = 'zqx"ter\\2'
    assert executed_stage(inside(single), monkeypatch, MLFLOW_TRACKING_PASSWORD=secret) == 1
    assert capsys.readouterr().err == ("x: notebooks/x.ipynb failed at cell 4: its output shows the value of "
                                       "MLFLOW_TRACKING_PASSWORD, so it is not kept\n")
    assert ">cell 4</a>." in (single / "reports" / "x.html").read_text()
    assert not [path for path in (single / "reports").iterdir() if "zqx" in path.read_text()]
    assert {name for name in remotes.SECRETS if secrets.NAMES.search(name)} == {
        name for name in remotes.SECRETS if not name.endswith(("USER", "USERNAME"))}


def test_a_secret_in_a_result_is_not_kept(single):
    word = 'the {os.environ["DVC_READ_PASSWORD"]} of a person'
    cells(single, "import os\n" + WRITES.replace("result {n}", word))
    done = nbproof(single, "run", DVC_READ_PASSWORD="zqx\"ter", AWS_SECRET_ACCESS_KEY="result")
    assert done.returncode == 1 and done.stdout.endswith(
        "Failed: x.\nx: notebooks/x.ipynb failed: models/x.txt held the value of DVC_READ_PASSWORD, so it was not "
        "kept.\n"), done.stdout
    kept = [path for path in single.rglob("*") if path.is_file() and b"zqx" in path.read_bytes()]
    assert not (single / "models" / "x.txt").exists() and not kept
    cells(single, "import os\n" + WRITES.replace("result {n}", word), "1 / 0")  # it is there before the cell that fails
    assert nbproof(single, "run", DVC_READ_PASSWORD="zqx\"ter").returncode == 1
    assert not (single / "models" / "x.txt").exists()


def test_outputs_that_are_too_large_are_cut(single, inside, monkeypatch, capsys):
    cells(single, WRITES, "print('<a' + 3_000_000 * 'x' + 'z>')",
          "from IPython.display import HTML\nHTML('<p>' + 9_000_000 * 'x' + '</p>')")
    assert executed_stage(inside(single), monkeypatch) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "x: warning: cell 4: 3.0 MB of text left out of notebook and page (one output may have 1 MB). What the cell "
        "computed is whole.",
        "x: warning: cell 5: 9.0 MB of text/html left out of notebook and page (one output may have 8 MB). What the "
        "cell computed is whole."]
    executed = nbformat.read(single / "reports" / "x.ipynb", as_version=4)
    (text,), (shown,) = executed.cells[4].outputs, executed.cells[5].outputs
    assert text.text.startswith("<axx") and text.text.endswith("xz>\n") and len(text.text) < 5_000
    assert shown.data == {"text/plain": "[9.0 MB of text/html left out here: one output may have 8 MB.]"}
    page = (single / "reports" / "x.html").read_text(encoding="utf-8")
    assert len(page) < 200_000 and page.count("left out here") == 2 and (single / "models" / "x.txt").exists()


@pytest.mark.parametrize("shows, what", [
    ("object()", "an address in memory ('<object at 0x"),
    ("import pathlib; print(pathlib.Path.cwd())", "a folder of this"),
    ("import datetime; print(datetime.datetime.now())", "the time of the clock ('20"), ("print('0x12345678')", ""),
    ("print('3/3 [00:00<00:00, 11407.90it/s]')", "the rate of a progress bar ('[00:00<"),
    ("print('0/3 [00:00<?, ?it/s]', [1, 2][:1])", "")])
def test_what_differs_from_run_to_run_is_said(single, inside, monkeypatch, capsys, shows, what):
    cells(single, WRITES, shows)
    assert executed_stage(inside(single), monkeypatch) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"x: warning: cell 4 shows {what}") if what else not said


def shows(*outputs: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook of one cell with these outputs."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=list(outputs))])


def display(**data) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", data={kind.replace("_", "/"): value for kind, value in data.items()})


def test_many_outputs_are_cut_until_all_are_small_enough(monkeypatch):
    """Never does a note make one longer: of a short text nothing is left out for its own sake."""
    monkeypatch.setattr(outputs, "WHOLE", 60_000)
    short, middle, long = "s" * 90, "m" * 3_900, "l" * 12_000
    notebook = shows(*(display(text_plain=text) for text in [short, *[middle] * 16, long]))
    assert limits.shorten(notebook) == [
        "cell 1: 15.8 kB in 3 outputs left out of notebook and page (all outputs together may have 0.06 MB). What the "
        "cell computed is whole."]
    texts = [each.data["text/plain"] for each in notebook.cells[0].outputs]
    assert texts[0] == short and texts[-1].startswith("lll") and texts[-1].endswith("lll") and len(texts[-1]) < 4_100
    assert texts.count(middle) == 14 and sum(map(len, texts)) <= 60_000
    assert texts[1] == "[3.9 kB of text left out here: all outputs together may have 0.06 MB.]"
    monkeypatch.setattr(outputs, "WHOLE", 10)
    limits.shorten(notebook)
    again = [each.data["text/plain"] for each in notebook.cells[0].outputs]
    assert again[1] == texts[1] and all(len(new) <= len(old) for new, old in zip(again, texts))


def test_what_is_no_text_is_left_out_whole(monkeypatch):
    """A figure of Plotly is JSON."""
    monkeypatch.setattr(outputs, "LARGEST", 1_000)
    figure = {"application/vnd.plotly.v1+json": {"data": list(range(999))}}
    notebook = shows(display(**figure), display(text_html="<p>"))
    (said,) = limits.shorten(notebook)
    assert said.startswith("cell 1: 4.9 kB of application/vnd.plotly.v1+json left out of notebook and page (one ")
    assert list(notebook.cells[0].outputs[0].data) == ["text/plain"]
    assert notebook.cells[0].outputs[1].data == {"text/html": "<p>"}


def test_widgets_have_numbers_instead_of_random_ids():
    views = [display(**{outputs.WIDGET: {"model_id": each, "version_major": 2}}) for each in ("f0", "a7", "f0")]
    notebook = shows(*views)
    limits.number_widgets(notebook)
    assert [each.data[outputs.WIDGET]["model_id"] for each in notebook.cells[0].outputs] == ["1", "2", "1"]


def test_half_a_letter_costs_itself_and_no_traceback(single):
    cells(single, WRITES, "print('before', chr(0xd800), 'after')", "raise ValueError(chr(0xd800) + 'why')")
    done = nbproof(single, "stage", "x")
    assert done.returncode == 1 and "Traceback" not in done.stdout and done.stdout.endswith("ValueError: ?why\n")
    assert "before ? after" in (single / "reports" / "x.ipynb").read_text(encoding="utf-8")


@posix
def test_a_long_path_of_temporary_files(single, tmp_path):
    """The kernel's sockets lie there, and a socket's path must be short."""
    long = tmp_path / ("long" * 40)
    long.mkdir()
    done = nbproof(single, "stage", "x", TMPDIR=str(long))
    assert done.returncode == 0 and (single / "models" / "x.txt").read_text() == "result 1", done.stdout
    assert not list(long.iterdir())


def test_dvc_and_run_tell_the_failure(single):
    cells(single, "print('before')\n1 / 0")
    failure = "x: notebooks/x.ipynb failed at cell 3 (print('before')): ZeroDivisionError: division by zero"
    repro = command(single, "dvc", "repro")
    assert repro.returncode != 0 and failure in repro.stdout, repro.stdout
    run = nbproof(single, "run")
    assert run.returncode == 1 and run.stdout == f"Failed: x.\n{failure}\n", run.stdout


def test_an_ordinary_command_fails_with_its_own_words(single):
    (single / "dvc.yaml").write_text(
        "stages:\n  first: {cmd: echo going && ls nowhere, outs: [data/a]}\n"
        "  second: {cmd: echo made > data/b, outs: [data/b]}\n"
        "  third: {cmd: cp data/a data/c, deps: [data/a], outs: [data/c]}\n  fourth: {cmd: 'true', outs: [data/d]}\n")
    (single / "data").mkdir()
    run = nbproof(single, "run", "--jobs", "1")
    assert run.returncode == 1 and "first: going\nfirst: ls: cannot access 'nowhere'" in run.stdout, run.stdout
    said = run.stdout[run.stdout.index("Failed: "):].splitlines()
    assert said[:3] == ["Failed: first, fourth. Not run: third.", "first failed; its last words:", "going"]
    assert "ERROR: failed to reproduce 'first': failed to run: echo going && ls nowhere, exited with 2" in said
    assert any(line.startswith("ERROR: failed to reproduce 'fourth': output 'data/d' does not exist") for line in said)
    assert (single / "data" / "b").read_text() == "made\n" and "config core.autostage" not in run.stdout


def test_a_broken_notebook_is_refused_in_one_sentence(single):
    (single / "notebooks" / "x.ipynb").write_text("{")
    for words in (("stage", "x"), ("run",)):
        done = nbproof(single, *words)
        assert done.returncode == 2 and done.stdout.count("\n") == 1, done.stdout
        assert done.stdout.startswith("notebooks/x.ipynb is not a notebook: ")


@pytest.mark.parametrize("given", ["soon", "0", "-5", "nan", "inf"])
def test_a_timeout_that_is_none_is_refused(monkeypatch, given):
    monkeypatch.setenv("CELL_TIMEOUT", given)
    with pytest.raises(UserError, match=f"^CELL_TIMEOUT must be a number of seconds above 0, found '{given}'.$"):
        stage.cell_timeout()


def test_the_time_limit_of_a_cell(monkeypatch):
    assert stage.cell_timeout() == 3600
    monkeypatch.setenv("CELL_TIMEOUT", "0.5")
    assert stage.cell_timeout() == 0.5


@pytest.mark.parametrize("words, said", [
    (("stage", "y"), "dvc.yaml has no stage 'y' that runs a notebook.\n"),
    (("run", "--jobs", "0"), "JOBS must be at least 1, found 0.\n"),
])
def test_words_that_are_refused(single, words, said):
    done = nbproof(single, *words)
    assert done.returncode == 2 and done.stdout == said


LOCK = "schema: '2.0'\nstages:\n  train@x:\n    cmd: {}\n"


def test_a_lock_file_with_a_merge_conflict_is_named(single):
    """And the way out that is told is one."""
    for words, cmd in ((), "first"), (("checkout", "-qb", "other"), "second"), (("checkout", "-q", "-"), "third"):
        if words:
            subprocess.run(["git", *words], cwd=single, check=True)
        (single / "dvc.lock").write_text(LOCK.format(cmd))
        commit(single)
    assert command(single, "git", "-c", "user.name=T", "-c", "user.email=t@example.org", "merge", "other").returncode
    for words in ("run", "verify"):
        done = nbproof(single, words)
        assert done.returncode == 2 and done.stdout.count("\n") == 1 and "dvc.lock" in done.stdout, done.stdout
    assert "git checkout --ours dvc.lock (or --theirs)" in done.stdout
    subprocess.run(["git", "checkout", "-q", "--ours", "dvc.lock"], cwd=single, check=True)
    assert "x: dvc.lock does not record its results" in nbproof(single, "verify").stdout


@pytest.mark.parametrize("text, said", [
    ("schema: '2.0'\n", "train@x: dvc.lock does not record its results (make run makes them)"),
    ("", "git checkout dvc.lock"), ("[]", "git checkout dvc.lock"), ("stages: {x: 3}", "git checkout dvc.lock"),
])
def test_a_lock_file_that_lost_a_part_is_one_sentence(single, inside, text, said):
    (inside(single) / "dvc.lock").write_text(text)
    done = CliRunner().invoke(cli.app, ["verify"])
    assert said in f"{done.output}{done.exception}" and isinstance(done.exception, SystemExit | UserError), done.exception


def test_checkout_brings_the_last_good_result_back(single):
    assert nbproof(single, "run").returncode == 0
    good = {path: path.read_bytes() for path in [single / "models" / "x.txt", *(single / "reports").glob("x.*")]}
    cells(single, WRITES, "raise ValueError('bad day')")
    assert nbproof(single, "run").returncode == 1
    assert command(single, "dvc", "checkout", "--force").returncode == 0
    assert len(good) == 3 and {path: path.read_bytes() for path in good} == good


def test_a_full_disk_leaves_no_half_file(single):
    """Files may not grow past 512 KiB, as on a disk with no room."""
    cells(single, "print('x' * 900_000)")
    done = command(single, "bash", "-c", f"ulimit -f 512; exec {sys.executable} -m nbproof stage x")
    assert done.returncode == 2 and "x: its reports could not be written (File too large); make room" in done.stdout
    assert "Traceback" not in done.stdout and len(done.stdout.strip().splitlines()[-1]) < 400
    assert not list((single / "reports").glob("*x*"))


def test_no_room_for_dvc_is_one_sentence(single):
    done = command(single, "bash", "-c", f"ulimit -f 4; exec {sys.executable} -m nbproof run")
    assert done.returncode == 2 and done.stdout.startswith("DVC cannot keep its notes"), done.stdout
    assert done.stdout.count("\n") == 1


@pytest.fixture
def small_disk(single):
    """reports/ as a disk of its own with 512 KiB."""
    (single / "reports").mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(single / "reports")]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield single / "reports"
    subprocess.run(["umount", str(single / "reports")], check=True)


def test_a_full_disk_keeps_what_was_good(single, small_disk):
    assert nbproof(single, "run").returncode == 0
    good = {path: path.read_bytes() for path in [single / "models" / "x.txt", *small_disk.glob("x.*")]}
    cells(single, WRITES.replace("result", "new result"), "print('x' * 900_000)")
    for words in ((sys.executable, "-m", "nbproof", "run"), ("dvc", "repro")):
        done = command(single, *words)
        assert done.returncode != 0 and "Traceback" not in done.stdout, done.stdout
        assert "x: its reports could not be written (No space left on device)" in done.stdout
        assert not [*small_disk.glob("x.*"), *small_disk.glob(".*x.*")]  # no half file
    assert command(single, "dvc", "checkout", "--force").returncode == 0
    assert len(good) == 3 and {path: path.read_bytes() for path in good} == good


def family(folder: Path) -> list[psutil.Process]:
    """Every living process that works in the project's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(condition, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.1)
    return False


def as_from_a_terminal() -> None:
    """Ctrl-C reaches the process, also where whoever runs the tests ignores it (a shell's background job does)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


BEATING = """\
import os, pathlib, time
place = pathlib.Path(os.environ['NBPROOF_OUTPUT'], 'beat')
while True:
    place.write_text(str(time.time()))
    time.sleep(0.1)
"""
LEFT_BEHIND = {
    "detached": "import subprocess, sys\n"
                f"_ = subprocess.Popen([sys.executable, '-c', {BEATING!r}], start_new_session=True)",
    "forked": f"import os\nif not os.fork():\n    os.setsid()\n    exec({BEATING!r})",
}
WAITS = ("import os, pathlib, time\n"
         "while not pathlib.Path(os.environ['NBPROOF_OUTPUT'], 'beat').exists(): time.sleep(0.1)")


@posix
@pytest.mark.parametrize("how", LEFT_BEHIND)
def test_what_a_cell_left_behind_ends_with_the_stage(single, how):
    cells(single, WRITES, LEFT_BEHIND[how], WAITS)
    done = nbproof(single, "stage", "x")
    assert done.returncode == 0, done.stdout
    if how == "detached":
        assert "x: a process that a cell had started was still at work, and was ended: " in done.stdout
    assert wait_for(lambda: not family(single), 5), family(single)


STILL = "\nimport time\ntime.sleep(100)"


@posix
@pytest.mark.parametrize("how, words", [("forked", ["nbproof", "stage", "x"]), ("detached", ["nbproof", "run"])])
def test_what_a_cell_started_ends_after_a_kill_too(single, how, words):
    """Of the stage itself, and of the run above it."""
    cells(single, WRITES, LEFT_BEHIND[how] + STILL)
    process = started(single, *words)
    process.kill()
    process.communicate(timeout=30)
    assert wait_for(lambda: not family(single), 10), [each.cmdline() for each in family(single)]
    beat = (single / "beat").read_text()
    time.sleep(0.5)
    assert (single / "beat").read_text() == beat


SLOW = """\
import time, os
from pathlib import Path
for i in range(1000):
    Path(os.environ['NBPROOF_OUTPUT'], 'beat').write_text(str(i))
    time.sleep(0.1)"""


def started(folder: Path, *words: str) -> subprocess.Popen:
    """A process group of its own, as from a terminal, whose notebook is at work."""
    (folder / "beat").unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, preexec_fn=as_from_a_terminal,
    )
    assert wait_for((folder / "beat").exists, 90)
    return process


@posix
@pytest.mark.parametrize("words, killed, number", [
    (["nbproof", "stage", "x"], "stage", signal.SIGKILL),
    (["dvc", "repro"], "dvc", signal.SIGKILL),
    (["nbproof", "run"], "run", signal.SIGKILL),
    (["nbproof", "run"], "run", signal.SIGTERM),
    (["nbproof", "run"], "run", signal.SIGINT),
    (["dvc", "repro"], "dvc", signal.SIGINT),
    (["nbproof", "run"], "kernel", signal.SIGKILL),
], ids=["kill stage", "kill dvc", "kill run", "end run", "interrupt run", "interrupt dvc", "kill kernel"])
def test_nothing_lives_on_after_a_kill(single, words, killed, number):
    cells(single, SLOW)
    process = started(single, *words)
    victim = process.pid
    if killed == "kernel":
        victim = next(each.pid for each in family(single) if "nbproof.runner.warm" in each.cmdline())  # forked from it
    if number == signal.SIGINT:  # a terminal sends it to the whole group
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(victim, number)
    said = process.communicate(timeout=30)[0]
    assert process.returncode != 0 and "Traceback" not in said, said
    assert killed != "kernel" or "x: notebooks/x.ipynb failed at cell 3 (import time, os): DeadKernelError" in said
    assert wait_for(lambda: not family(single), 10), [each.cmdline() for each in family(single)]
    beat = (single / "beat").read_text()
    time.sleep(0.5)
    assert (single / "beat").read_text() == beat
    if number != signal.SIGKILL:
        return
    cells(single, WRITES)  # no lock is left
    again = nbproof(single, "run")
    assert again.returncode == 0 and (single / "models" / "x.txt").read_text() == "result 1", again.stdout


@posix
def test_a_run_that_is_killed_at_some_moment_is_completed_by_the_next(single):
    """With the lock and the bytes of a run that was left alone."""
    began = time.monotonic()
    assert nbproof(single, "run").returncode == 0
    seconds, lock, made = time.monotonic() - began, (single / "dvc.lock").read_bytes(), results(single)
    for name in ("models", "reports", ".dvc/cache"):
        shutil.rmtree(single / name)
    (single / "dvc.lock").unlink()
    for share in (0.3, 0.6, 0.9):
        process = subprocess.Popen([sys.executable, "-m", "nbproof", "run"], cwd=single, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        time.sleep(share * seconds)
        process.kill()
        process.wait()
        assert wait_for(lambda: not family(single), 15), [each.cmdline() for each in family(single)]
    again = nbproof(single, "run")
    assert again.returncode == 0 and "Traceback" not in again.stdout, again.stdout
    assert (single / "dvc.lock").read_bytes() == lock and results(single) == made


@posix
def test_an_interrupt_while_the_champion_is_registered(finished):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(120)
        server = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        process = subprocess.Popen(
            [sys.executable, "-m", "nbproof", "promote"], cwd=finished, env=os.environ | server,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=as_from_a_terminal)
        silent.accept()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0] == "Interrupted.\n" and process.returncode == 130


@posix
def test_a_reader_that_ends_early_is_no_error(single):
    """As in `nbproof secrets | head`."""
    done = command(single, "bash", "-c", f"{sys.executable} -m nbproof secrets | true")
    assert done.stdout == ""


@pytest.mark.parametrize("words", [["promote"], ["remote"], ["predict", "table.csv"], ["ui"]])
def test_no_command_prints_the_password_of_a_stores_address(finished, inside, monkeypatch, words):
    (inside(finished) / "table.csv").write_text("case\n1\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "weird://user:pass-word@host")
    done = CliRunner().invoke(cli.app, words)
    said = f"{done.output} {done.exception}"
    assert "weird://host" in said and "pass-word" not in said
    assert done.exception is None or isinstance(done.exception, SystemExit | UserError), said


@posix
def test_an_interrupt_starts_nothing_more(single):
    """Only `run` itself is told, as by `kill -INT`; notebooks that wait for their turn must not get it."""
    cells(single, SLOW)
    for name in "yz":
        text = (single / "notebooks" / "x.ipynb").read_text().replace("models.x", f"models.{name}")
        (single / "notebooks" / f"{name}.ipynb").write_text(text)
    (single / "params.yaml").write_text("models:\n" + "".join(f"  {name}: {{n: 1}}\n" for name in "xyz"))
    process = started(single, "nbproof", "run", "--jobs", "1")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 130 and said == "Interrupted.\n"
    assert wait_for(lambda: not family(single), 5), [each.cmdline() for each in family(single)]


def test_a_stage_whose_run_is_gone_does_nothing(single):
    """`run` may be killed while DVC is still about to start the stage."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    done = nbproof(single, "stage", "x", NBPROOF_STARTED_BY=str(gone.pid))
    assert done.returncode == 2 and done.stdout == "The run that started this stage has ended: nothing is done.\n"
    assert not (single / "models" / "x.txt").exists()


def test_two_runs_at_once(single):
    cells(single, "import time\ntime.sleep(6)", WRITES)
    words = [sys.executable, "-m", "nbproof", "run"]
    both = [subprocess.Popen(words, cwd=single, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    assert "Another run is at work in this folder: wait for it to end, then run again.\n" in said
    assert (single / "models" / "x.txt").read_text() == "result 1"


def test_settings_of_the_person_do_not_matter(single, inside, monkeypatch):
    """A backend, a path or a variable of the person's must not change what a notebook says; nor a process's number."""
    cells(single, "import os, sys, warnings\n"
                  "print(os.environ.get('MPLBACKEND'), hash('x'), '/of/a/person' in sys.path)\n"
                  "warnings.warn('shown')")
    assert executed_stage(inside(single), monkeypatch) == 0
    first = (single / "reports" / "x.ipynb").read_bytes()
    mine = {"MPLBACKEND": "svg", "PYTHONHASHSEED": "77", "PYTHONWARNINGS": "ignore", "PYTHONPATH": "/of/a/person"}
    assert executed_stage(single, monkeypatch, **mine) == 0
    assert (single / "reports" / "x.ipynb").read_bytes() == first and b"UserWarning: shown" in first


RAISES = """\
from nbproof.notebook import Remedy
if n != 7:
    value = VALUE
    raise Remedy(f'{n} does not work; set PARAMETER to {value}.', 'PARAMETER', value)"""


def raising(parameter: str, value: object) -> str:
    return RAISES.replace("PARAMETER", parameter).replace("VALUE", repr(value))


def test_the_remedy_that_a_failure_brings_is_taken(single):
    (single / "params.yaml").write_text("models:\n  x: {n: 1}  # a number\n")
    cells(single, raising("models.x.n", 7), WRITES)
    refused = nbproof(single, "run", "--no-remedy")
    assert refused.returncode == 1 and "Remedy: 1 does not work; set models.x.n to 7." in refused.stdout, refused.stdout
    assert (single / "params.yaml").read_text() == "models:\n  x: {n: 1}  # a number\n"
    done = nbproof(single, "run")
    assert done.returncode == 0 and (single / "models" / "x.txt").read_text() == "result 7", done.stdout
    switched = "1 does not work; set models.x.n to 7.\n\nGoing on with models.x.n: 7 instead of 1. "
    assert done.stdout.startswith(switched) and done.stdout.count(switched) == 2  # when it switches, and at the end
    assert "To go back: git checkout params.yaml" in done.stdout[done.stdout.index("Done in "):]
    assert (single / "params.yaml").read_text() == "models:\n  x: {n: 7}  # a number\n"


def failure_of(place: Path) -> dict:
    return nbformat.read(place / "reports" / "x.ipynb", as_version=4).metadata.failure


def take(place: Path, taken: dict[str, str]) -> dict[str, str]:
    with dag.opened(place) as repo:
        return run.take_remedy({"train@x": "failed"}, dag.read(repo), taken)


@pytest.mark.parametrize("parameter, value", [
    ("models.x.other", 7), ("project.name", "x"), ("models.x.n", 99), ("models.x.n", "7"), ("models.x.n", 1)])
def test_a_remedy_that_is_none_is_not_taken(single, inside, monkeypatch, parameter, value):
    before = (single / "params.yaml").read_text()
    cells(single, raising(parameter, value))
    assert executed_stage(inside(single), monkeypatch) == 1
    assert failure_of(single)["remedy"] == {"parameter": parameter, "value": value}
    assert take(single, {}) == {} and (single / "params.yaml").read_text() == before


def test_no_parameter_is_set_twice(single, inside, monkeypatch):
    """From 1 to 2, and from 2 to 1, and so on."""
    cells(single, raising("models.x.n", 2))
    assert executed_stage(inside(single), monkeypatch) == 1
    assert take(single, {"models.x.n": "set a moment ago"}) == {}
    assert list(take(single, {"models.x.other": "set"})) == ["models.x.n"]
    assert (single / "params.yaml").read_text() == "models:\n  x: {n: 2}\n"


def test_a_remedy_that_was_caught_is_none(single, inside, monkeypatch):
    caught = "\n".join(f"    {line}" for line in raising("models.x.n", 7).splitlines())
    cells(single, f"try:\n{caught}\nexcept RuntimeError:\n    1 / 0")
    assert executed_stage(inside(single), monkeypatch) == 1
    assert failure_of(single)["error"] == "ZeroDivisionError" and "remedy" not in failure_of(single)
