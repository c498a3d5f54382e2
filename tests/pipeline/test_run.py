"""The whole graph: what runs, what is recorded, what is refused, and that nothing lives on."""

import contextlib
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
from functools import reduce
from operator import getitem
from pathlib import Path

import psutil
import pytest
from bs4 import BeautifulSoup
from projects import (
    NOT_COPIED,
    WRITES,
    cells,
    command,
    commit,
    dvc,
    edit_params,
    edit_yaml,
    model_notebook,
    nbproof,
    notebook,
    results,
    stages_run,
    tiny,
)

from nbproof.notebook.errors import UserError
from nbproof.pipeline import dag, run

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
ALL = {"data", "near", "far", "compare"}


def git_status(folder: Path) -> str:
    return command(folder, "git", "status", "--short").stdout


def test_the_first_run(finished_once):
    folder, printed = finished_once
    lines = printed.splitlines()
    assert stages_run(printed) == ALL and "near: round 3/3  error 0.75" in printed
    counts = [line for line in lines if "count" in line]
    assert counts == ["count: starts", "count: counted"]  # no hints of DVC's
    at = lines.index("       error")  # the results stand at the end, and no verdict on a change
    assert lines[at + 1 : at + 4] == ["near  0.7500", "far   0.5000", "The champion is far."]
    last = [line for line in lines[at + 4 :] if "is better" in line or line.startswith("Done in ")]
    assert len(last) == 1 and last[0].endswith("The result: reports/index.html")
    assert json.loads((folder / "metrics" / "compare.json").read_text())["champion"] == "far"
    assert sorted(path.name for path in (folder / "data" / "table").iterdir()) == ["3.csv", "5.csv"]
    pages = {path.stem for path in (folder / "reports").glob("*.html")}
    assert pages == ALL | {"index"} and git_status(folder) == ""


def test_twice_from_nothing_gives_the_same_bytes(finished_once, tmp_path):
    """Another folder, one job instead of two, nothing from a cache, a person's own settings."""
    other = tiny(tmp_path / "a b#%20ü" / "copy")
    done = nbproof(other, "run", "--jobs", "1", "--force", MPLBACKEND="svg", TZ="Asia/Tokyo",
                   MLFLOW_RUN_ID="of-a-person")
    assert done.returncode == 0 and stages_run(done.stdout) == ALL, done.stdout
    ours, theirs = results(finished_once[0]), results(other)
    assert [name for name in ours | theirs if ours.get(name) != theirs.get(name)] == []
    assert (other / "dvc.lock").read_bytes() == (finished_once[0] / "dvc.lock").read_bytes()
    host = socket.gethostname().encode()
    for name, content in ours.items():
        assert str(finished_once[0]).encode() not in content and b"start_time" not in content, name
        assert len(host) < 6 or host not in content, name


def test_nothing_to_do_after_what_editors_save_and_what_no_stage_needs(finished):
    """Nothing runs, nothing on disk is rewritten, and git sees what a person did."""
    path = finished / "notebooks" / "near.ipynb"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["cells"][1]["execution_count"] = 7
    content["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["x\n"]}]
    saved = json.dumps(content, indent=2)
    path.write_text(saved, encoding="utf-8")
    lock = (finished / "dvc.lock").read_bytes()
    for name in ("models/.near.4711/MLmodel", "data/table/.5.csv.4711"):  # what a kill leaves
        (finished / name).parent.mkdir(exist_ok=True)
        (finished / name).touch()
    done = nbproof(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == set(), done.stdout
    assert "results are the committed ones, byte for byte." in done.stdout
    assert "their results" not in done.stdout and (finished / "dvc.lock").read_bytes() == lock
    assert path.read_text(encoding="utf-8") == saved
    assert git_status(finished) == " M notebooks/near.ipynb\n"


def test_new_prose_runs_nothing_and_gives_what_a_run_gives(finished):
    path = finished / "notebooks" / "near.ipynb"
    text = path.read_text(encoding="utf-8").replace("a model", "another subtitle")
    path.write_text(text, encoding="utf-8")
    done = nbproof(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == set(), done.stdout
    assert "near: only its prose changed" in done.stdout
    assert "another subtitle" in (finished / "reports" / "near.html").read_text(encoding="utf-8")
    lock, made = (finished / "dvc.lock").read_bytes(), results(finished)
    assert dvc(finished, "status").stdout == "Data and pipelines are up to date.\n"
    done = nbproof(finished, "run", "--force")
    assert stages_run(done.stdout) == ALL
    assert results(finished) == made and (finished / "dvc.lock").read_bytes() == lock


def test_one_notebook_for_many_values(finished):
    """DVC's foreach: each instance has its own value, executed copy and page."""
    cells_of = ["#!# A power", '@exponent: int = 1  # [1, 9] of two',
                "from nbproof.notebook import write\nwrite(f'data/{exponent}', str(2**exponent))\n"
                "write(f'metrics/power@{exponent}.json', f'{{\"error\": {1 / exponent}}}')"]
    notebook(finished / "notebooks" / "power.ipynb", *cells_of)
    stage = {"cmd": "nbproof stage exponent=${item}",
             "deps": ["notebooks/power.ipynb", "pins.txt"],
             "outs": ["data/${item}", "reports/power@${item}.ipynb"],
             "metrics": [{"metrics/power@${item}.json": {"cache": False}}]}
    edit_yaml(finished / "dvc.yaml", lambda content: content["stages"].update(
        power={"foreach": [2, 3], "do": stage}))
    done = nbproof(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == {"power@2", "power@3"}, done.stdout
    assert [(finished / "data" / name).read_text() for name in "23"] == ["4", "8"]
    assert (finished / "reports" / "power@3.html").exists()
    index = BeautifulSoup((finished / "reports" / "index.html").read_text(), "html.parser")
    assert "power@3: starts" in done.stdout
    assert [[cell.text for cell in row("td")] for row in index.select("h3 + table tr")] == [
        [], ["power@2", "2", "0.5000"], ["power@3", "3", "0.3333"]]
    assert not index.select(".cards a[href^=power]") and index.select("td a[href='power@3.html']")
    lock = (finished / "dvc.lock").read_bytes()
    done = dvc(finished, "repro", "-f", "-s", "power@3")
    assert done.returncode == 0 and (finished / "dvc.lock").read_bytes() == lock, done.stdout
    assert nbproof(finished, "run").stdout.startswith("Everything is up to date.")


def test_the_last_words_say_what_became_better_or_worse(finished):
    """Each model that changed against its results before, and nothing where the data is other."""
    edit_params(finished, lambda content: content["models"]["near"].update(step=1))
    done = nbproof(finished, "run")
    said = "Same champion far, 0.5000. near is better: 0.7500 → 0.0000, 6 fewer errors of 8."
    assert said.split(". near")[1] in done.stdout, done.stdout
    index = (finished / "reports" / "index.html").read_text(encoding="utf-8")
    assert "near is better" in index and "is better" not in nbproof(finished, "run").stdout
    edit_params(finished, lambda content: content["data"].update(label="other"))
    assert " is " not in nbproof(finished, "run").stdout.split("champion is")[0]


def test_an_import_that_fails_is_quoted_with_what_to_do(single):
    cells(single, "import json\n\nimport nowhere")
    printed = nbproof(single, "run").stdout
    assert ("failed at cell 3 (import nowhere): ModuleNotFoundError: No module named 'nowhere'. "
            "Install the package that has nowhere, or write the module beside") in printed, printed
    cells(single, "import os\n\nimport jsn")
    assert "No module named 'jsn'. Did you mean json?\n" in nbproof(single, "run").stdout
    cells(single, "import os\n\nfrom json import nothing")
    printed = nbproof(single, "run").stdout
    assert "cell 3 (from json import nothing): ImportError: " in printed, printed
    assert "Install" not in printed, "json is there"
    module = single / "notebooks" / "helper.py"
    module.write_text("")
    commit(single)
    module.unlink()
    cells(single, "import json\n\nimport helper")
    printed = nbproof(single, "run").stdout
    assert "'helper'. git checkout notebooks/helper.py brings it back" in printed, printed


@pytest.mark.parametrize("what", ["code", "module", "result", "arithmetic"])
def test_more_than_prose_runs_the_notebook(finished, what):
    if what == "arithmetic":
        executed = finished / "reports" / "near.ipynb"
        executed.chmod(0o644)
        executed.write_text(executed.read_text().replace('"arithmetic": "', '"arithmetic": "a-'))
        dvc(finished, "commit", "-f", "train@near")
    path = finished / "notebooks" / "near.ipynb"
    text = path.read_text(encoding="utf-8").replace("a model", "another subtitle")
    path.write_text(text, encoding="utf-8")
    if what == "code":
        path.write_text(text.replace("{curve[-1]:.3f} with", "{curve[-1]:.2f} with"))
    elif what == "module":
        (finished / "notebooks" / "tiny" / "cases.py").open("a").write("# edited\n")
    elif what == "result":
        (finished / "models" / "near.csv").unlink()
    assert "near" in stages_run(nbproof(finished, "run").stdout)


def test_a_changed_parameter_and_back(finished):
    """One model and the comparison run; back to the old value DVC's run-cache has all results."""
    lock, before = (finished / "dvc.lock").read_bytes(), results(finished)
    edit_params(finished, lambda content: content["models"]["near"].update(step=1))
    done = nbproof(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == {"near", "compare"}, done.stdout
    changed, made = (finished / "dvc.lock").read_bytes(), results(finished)
    subprocess.run(["git", "checkout", "-q", "params.yaml"], cwd=finished, check=True)
    back = nbproof(finished, "run")
    assert back.returncode == 0 and stages_run(back.stdout) == set(), back.stdout
    assert (finished / "dvc.lock").read_bytes() == lock and results(finished) == before
    edit_params(finished, lambda content: content["models"]["near"].update(step=1))
    repro = dvc(finished, "repro", "--no-run-cache", "train@near", "compare")  # by DVC alone
    assert repro.returncode == 0 and stages_run(repro.stdout) == {"near", "compare"}, repro.stdout
    assert (finished / "dvc.lock").read_bytes() == changed and results(finished) == made


def test_dvc_alone_restores_and_experiments_run(finished, tmp_path):
    other = shutil.copytree(finished, tmp_path / "other", ignore=NOT_COPIED)
    for name in ("data", "models", "metrics", "reports"):
        shutil.rmtree(other / name)
    (other / "dvc.lock").unlink()
    repro = dvc(other, "repro")
    assert repro.returncode == 0 and stages_run(repro.stdout) == set(), repro.stdout
    assert "Everything is up to date" in nbproof(other, "run").stdout
    assert (other / "dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()
    assert results(other) == results(finished)
    assert (other / "reports" / "near.html").exists()  # pages that are missing are made
    done = dvc(finished, "exp", "run", "-S", "models.near.rounds=1")
    assert done.returncode == 0 and stages_run(done.stdout) == {"near", "compare"}, done.stdout


def test_values_are_values_whatever_they_look_like(finished):
    hostile = "'\"); open('pwned', 'w') # $(touch pwned) {{ n }} \\ `touch pwned`\n\"\"\""
    edit_params(finished, lambda content: content["data"].update(sizes=[9], label=hostile))
    done = nbproof(finished, "run", "--jobs", "1")
    assert done.returncode == 0 and not list(finished.rglob("pwned")), done.stdout
    ran = json.loads((finished / "reports" / "data.ipynb").read_text())["cells"]
    assert "".join(ran[-1]["outputs"][0]["text"]) == f"[9] {hostile}\n"
    name = '$(touch pwned)`touch pwned`"; touch pwned; "'
    edit_params(finished, lambda content: content["models"].update({name: {"step": 1}}))
    notebook(finished / "notebooks" / f"{name}.ipynb", "print(1)")
    done = nbproof(finished, "run")
    assert done.returncode == 2 and "A model cannot be called $(touch" in done.stdout
    assert not list(finished.rglob("pwned"))


def test_a_model_comes_and_goes(finished):
    model_notebook(finished, "third")
    third = {"step": 3, "rounds": 1}
    edit_params(finished, lambda content: content["models"].update(third=third))
    done = nbproof(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == {"third", "compare"}, done.stdout
    (finished / "notebooks" / "third.ipynb").unlink()
    subprocess.run(["git", "checkout", "-q", "params.yaml"], cwd=finished, check=True)
    # A branch's dvc.lock and a link inside the project once had .git/HEAD deleted.
    (finished / "data" / "g").symlink_to("../.git")
    head = (finished / ".git" / "HEAD").read_bytes()
    out = {"path": "data/g/HEAD", "md5": hashlib.md5(head).hexdigest(), "size": len(head)}
    edit_yaml(finished / "dvc.lock", lambda content: content["stages"].update(
        {"gone@x": {"cmd": "x", "outs": [out]}}))
    done = nbproof(finished, "run")
    assert done.returncode == 0 and "No longer in dvc.yaml: train@third, gone@x. Th" in done.stdout
    assert (finished / "models" / "third").exists() and (finished / ".git" / "HEAD").exists()


def test_a_file_of_a_person_among_results_is_named_and_kept(finished):
    mine = finished / "data" / "table" / "mine.csv"
    mine.write_text("mine")
    done = nbproof(finished, "run")
    assert done.returncode == 2 and mine.read_text() == "mine", done.stdout
    assert done.stdout.endswith(
        "data/table/mine.csv is no result of data, and running that would delete it: move it out "
        "of data/table, then run again.\n")


def test_empty_folders_are_no_results(single):
    """DVC does not keep them, so a checkout would differ from what the next stage saw."""
    edit_yaml(single / "dvc.yaml", lambda content: content["stages"]["train"]["do"]["outs"].append(
        "models/folder"))
    cells(single, WRITES, "from nbproof.notebook import output_folder\n"
                          "folder = output_folder('models/folder')\n"
                          "(folder / 'a' / 'b').mkdir(parents=True)\n(folder / 'f').touch()")
    assert nbproof(single, "run").returncode == 0
    assert [path.name for path in (single / "models" / "folder").rglob("*")] == ["f"]


def test_what_changes_while_a_stage_runs_fails_it(single):
    assert nbproof(single, "run").returncode == 0
    lock = (single / "dvc.lock").read_bytes()
    (single / "notebooks" / "helper.py").touch()
    edit_yaml(single / "dvc.yaml", lambda content: content["stages"]["train"]["do"]["deps"].append(
        "notebooks/helper.py"))
    cells(single, WRITES, "import pathlib\npathlib.Path('helper.py').write_text('# edited')")
    for words in (("run",), ("stage", "x")):
        (single / "notebooks" / "helper.py").write_text("")
        done = nbproof(single, *words)
        assert done.returncode == 1 and "notebooks/helper.py changed while" in done.stdout
    assert (single / "dvc.lock").read_bytes() == lock


def test_a_secret_is_neither_shown_nor_kept(single):
    shows = "import os\nprint('it is', os.environ['MLFLOW_TRACKING_PASSWORD'])"
    writes = "import os\n" + WRITES.replace("result {n}", '{os.environ["DVC_READ_PASSWORD"]}')
    for own, reason in ((shows, "MLFLOW_TRACKING_PASSWORD"), (writes, "DVC_READ_PASSWORD")):
        cells(single, own)
        done = nbproof(single, "run", MLFLOW_TRACKING_PASSWORD='zqx"ter\\2',
                       DVC_READ_PASSWORD="zqx-ter")
        assert done.returncode == 1 and reason in done.stdout and "zqx" not in done.stdout
        files = filter(Path.is_file, single.rglob("*"))
        kept = [path for path in files if b"zqx" in path.read_bytes()]
        assert not kept


def test_an_ordinary_command_fails_with_its_own_words(finished):
    edit_yaml(finished / "dvc.yaml", lambda content: content["stages"]["count"].update(
        cmd="echo no such table >&2; exit 3"))
    done = nbproof(finished, "run")
    assert done.returncode == 1 and "count: no such table" in done.stdout
    assert "count: `echo no such table >&2; exit 3` failed with exit code 3" in done.stdout


def test_a_dependency_that_is_missing_is_named_and_the_rest_runs(finished):
    edit_yaml(finished / "dvc.yaml", lambda content: content["stages"]["count"]["deps"].append(
        "raw.csv"))
    edit_params(finished, lambda content: content["models"]["near"].update(step=1))
    done = nbproof(finished, "run")
    assert done.returncode == 1 and stages_run(done.stdout) == {"near", "compare"}, done.stdout
    assert done.stdout.endswith(
        "Failed: count.\ncount: raw.csv, which it depends on, is missing.\n")


def test_a_failed_stage_has_a_page_and_the_last_good_result_comes_back(single):
    assert nbproof(single, "run").returncode == 0
    good = results(single)
    cells(single, WRITES, "raise ValueError('bad day \\x1b[2J')")
    done = nbproof(single, "run")
    assert done.returncode == 1 and done.stdout.endswith(
        "Failed: x.\nx: notebooks/x.ipynb failed at cell 4 (raise ValueError('bad day "
        "\\x1b[2J')): ValueError: bad day\n")
    assert "bad day" in (single / "reports" / "x.html").read_text()
    repro = dvc(single, "repro")
    assert repro.returncode != 0 and "x: notebooks/x.ipynb failed at cell 4" in repro.stdout
    assert dvc(single, "checkout", "--force").returncode == 0 and results(single) == good


FALLBACK = ("from nbproof.notebook import Fallback\nif n != 7:\n"
            "    raise Fallback(f'{n} does not work.', 'PARAMETER', VALUE)")


def test_a_fallback_is_taken_named_twice_and_never_in_ci(single):
    (single / "params.yaml").write_text("models:\n  x: {n: 1}  # a number\n")
    cells(single, FALLBACK.replace("PARAMETER", "models.x.n").replace("VALUE", "7"), WRITES)
    for words, variables in ((["--no-fallback"], {}), ([], {"CI": "true"})):
        done = nbproof(single, "run", *words, **variables)
        assert done.returncode == 1 and "Fallback: 1 does not work." in done.stdout, done.stdout
        assert (single / "params.yaml").read_text() == "models:\n  x: {n: 1}  # a number\n"
    done = nbproof(single, "run", CI="")
    assert done.returncode == 0 and (single / "models" / "x.txt").read_text() == "result 7"
    assert done.stdout.count("Going on with models.x.n: 7 instead of 1.") == 2
    assert "To go back: git checkout params.yaml" in done.stdout[done.stdout.index("Done in"):]
    assert "n: 7" in (single / "params.yaml").read_text()
    assert "# a number" in (single / "params.yaml").read_text()


@pytest.mark.parametrize("parameter, value", [
    ("models.x.other", 7), ("project.name", "x"), ("models.x.n", 99), ("models.x.n", "'7'"),
    ("models.x.n", 1), ("models.x.n", 2)])
def test_a_fallback_that_is_none_ends_the_run(single, parameter, value):
    """Unknown, out of range, of another type, as it is already; and 1 to 2, after which 2 fails."""
    cells(single, FALLBACK.replace("PARAMETER", parameter).replace("VALUE", str(value)))
    done = nbproof(single, "run", CI="")
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert done.stdout.count("Going on with") == (1 if value == 2 else 0), done.stdout


def edits(name: str, *keys: str, **values) -> tuple:
    """Which values of a YAML file change; `keys` lead to them."""
    return name, lambda content: reduce(getitem, keys, content).update(values)


STAGE = {"cmd": "nbproof stage", "deps": ["notebooks/near.ipynb"], "outs": ["data/x"]}
OUT_OF_RANGE = (edits("params.yaml", "models", "near", step=0),
                "params.yaml: models.near.step must be int, in [1, 9] (numbers that get one "
                "class), found 0.")


@pytest.mark.parametrize("change, sentence", [
    (edits("dvc.yaml", "stages", extra=STAGE | {
        "deps": ["notebooks/my-tree.ipynb"], "outs": ["models/my-tree", "metrics/my-tree.json"]}),
     "A model cannot be called my-tree: a name has letters, digits and _, a letter first. "
     "Rename it in params.yaml and its notebook."),
    (edits("dvc.yaml", "stages", extra=STAGE),
     "dvc.yaml: two stages write reports/near.ipynb: give each a notebook of its own, or values "
     "in its command (nbproof stage a=1)."),
    (edits("dvc.yaml", "stages", extra=STAGE | {"cmd": "nbproof stage stp=1"}),
     "dvc.yaml gives notebooks/near.ipynb a value for stp, which its parameters cell does not "
     "declare. Did you mean step?"),
    (edits("project.yaml", compare="judge"),
     "project.yaml: compare is judge, and dvc.yaml has no such stage."),
    (edits("project.yaml", data="data.name"),
     "project.yaml: data is data.name, which params.yaml does not have."),
    (edits("params.yaml", "models", "far", warm=1),
     "params.yaml: models.far.warm is unknown; notebooks/far.ipynb knows rounds, step."),
    OUT_OF_RANGE,
])
def test_what_is_refused_before_anything_runs(finished, inside, change, sentence):
    name, edit = change
    edit_yaml(inside(finished) / name, edit)
    with pytest.raises(UserError) as refused, dag.opened(finished) as repo:
        run.check_all(dag.read(repo))
    assert str(refused.value) == sentence


def test_a_refusal_is_one_sentence_and_changes_nothing(finished):
    before = results(finished)
    (name, edit), sentence = OUT_OF_RANGE
    edit_yaml(finished / name, edit)
    done = nbproof(finished, "run")
    assert done.returncode == 2 and done.stdout == f"{sentence}\n" and results(finished) == before
    for text in ("{", "[1]"):
        (finished / "notebooks" / "near.ipynb").write_text(text)
        done = nbproof(finished, "run")
        assert done.returncode == 2 and done.stdout.count("\n") == 1, done.stdout
    assert nbproof(finished, "run", "--jobs", "0").stdout == "JOBS must be at least 1, found 0.\n"


def family(folder: Path) -> list[psutil.Process]:
    """Every living process that works in the project's folder, but this one."""
    found = []
    for process in psutil.process_iter():
        try:
            inside = Path(process.cwd()).is_relative_to(folder)
            if inside and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
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


def started(folder: Path, *words: str) -> subprocess.Popen:
    """Start a process group of its own, as from a terminal, and wait for its notebook's beat."""
    (folder / ".beat").unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=folder, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert wait_for((folder / ".beat").exists, 90)
    return process


BEATS = """\
import os, pathlib, time
beat = pathlib.Path(os.environ['NBPROOF_OUTPUT'], '.beat')
while True:
    beat.write_text(str(time.time()))
    time.sleep(0.1)
"""
DETACHED = ("import subprocess, sys\n"
            f"_ = subprocess.Popen([sys.executable, '-c', {BEATS!r}], start_new_session=True)")
FORKED = f"import os\nif not os.fork():\n    os.setsid()\n    exec({BEATS!r})"
SLEEPS = "\nimport time\ntime.sleep(100)"
# What the cell does, the command, who is ended, by which signal. DVC's own commands are a tree:
# dvc, a shell, nbproof stage, the kernel.
KILLS = {
    "kill the run": (BEATS, ["nbproof", "run"], "first", signal.SIGKILL),
    "end the run": (BEATS, ["nbproof", "run"], "first", signal.SIGTERM),
    "interrupt the run": (BEATS, ["nbproof", "run"], "group", signal.SIGINT),
    "interrupt only the run": (BEATS, ["nbproof", "run", "--jobs", "1"], "first", signal.SIGINT),
    "kill the kernel": (BEATS, ["nbproof", "run"], "kernel", signal.SIGKILL),
    "kill the stage": (BEATS, ["nbproof", "stage", "x"], "first", signal.SIGKILL),
    "kill dvc": (BEATS, ["dvc", "repro"], "first", signal.SIGKILL),
    "interrupt dvc": (BEATS, ["dvc", "repro"], "group", signal.SIGINT),
    "kill the run of a detached": (DETACHED + SLEEPS, ["nbproof", "run"], "first", signal.SIGKILL),
    "kill the stage of a forked": (
        FORKED + SLEEPS, ["nbproof", "stage", "x"], "first", signal.SIGKILL),
}


@posix
@pytest.mark.parametrize("name", KILLS)
def test_nothing_lives_on_and_the_next_run_is_whole(single, name):
    cell, words, victim, number = KILLS[name]
    cells(single, cell)
    process = started(single, *words)
    if victim == "group":
        os.killpg(process.pid, number)
    elif victim == "kernel":
        kernel = next(each for each in family(single) if "nbproof.runner.kernel" in each.cmdline())
        kernel.kill()
    else:
        process.send_signal(number)
    printed = process.communicate(timeout=30)[0]
    assert process.returncode != 0 and "Traceback" not in printed, printed
    assert wait_for(lambda: not family(single), 10), [each.cmdline() for each in family(single)]
    beat = (single / ".beat").read_text()
    time.sleep(0.3)
    assert (single / ".beat").read_text() == beat
    if victim == "kernel":
        assert "failed at cell 3 (import os, pathlib, time): DeadKernelError" in printed
    if number == signal.SIGINT and words[0] == "nbproof":
        assert process.returncode == 130
        assert printed == ("x: starts\nStopped. Finished stages are kept: nbproof run goes on, and "
                           "makes the results of the others, which are removed.\n"
                           "Interrupted.\n")
    cells(single, WRITES)  # no lock is left
    again = nbproof(single, "run")
    assert again.returncode == 0 and (single / "models" / "x.txt").read_text() == "result 1"


@posix
def test_on_a_terminal_nothing_but_ours_is_shown(single):
    """DVC's bars were lines above the table, thousands in a run of minutes."""
    terminal, screen = pty.openpty()
    termios.tcsetwinsize(screen, (40, 120))
    with subprocess.Popen([sys.executable, "-m", "nbproof", "run"], cwd=single, stdout=screen,
                          stderr=screen, env=os.environ | {"TERM": "xterm"}) as process:
        os.close(screen)
        shown = b""
        with contextlib.suppress(OSError):  # Linux raises it at the end
            while part := os.read(terminal, 65536):
                shown += part
    os.close(terminal)
    text = shown.decode()
    assert process.returncode == 0 and "x" in text and "Done in" in text, text
    assert not re.search(r"hashes|cache|lock|file/s|!", text), text


@posix
def test_what_a_cell_left_behind_ends_with_its_stage(single):
    waits = ("beat = pathlib.Path(os.environ['NBPROOF_OUTPUT'], '.beat')\n"
             "while not beat.exists(): time.sleep(0.1)")
    cells(single, WRITES, DETACHED, f"import os, pathlib, time\n{waits}")
    done = nbproof(single, "stage", "x")
    assert done.returncode == 0, done.stdout
    assert "x: a process that a cell had started was still at work, and was ended: " in done.stdout
    assert wait_for(lambda: not family(single), 5), family(single)


@posix
def test_a_run_that_is_killed_is_completed_by_the_next(single, request, monkeypatch):
    """With the lock and the bytes of a run that was left alone, and without a folder left."""
    temporary = Path(tempfile.mkdtemp())  # a path that is short enough for sockets
    request.addfinalizer(lambda: shutil.rmtree(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    began = time.monotonic()
    assert command(single, sys.executable, "-m", "nbproof", "run").returncode == 0
    seconds = time.monotonic() - began
    lock, made = (single / "dvc.lock").read_bytes(), results(single)
    for name in ("models", "reports", ".dvc/cache"):
        shutil.rmtree(single / name)
    (single / "dvc.lock").unlink()
    for part in (0.3, 0.6, 0.9):
        process = subprocess.Popen([sys.executable, "-m", "nbproof", "run"], cwd=single,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(part * seconds)
        process.kill()
        process.wait()
        assert wait_for(lambda: not family(single), 15)
    again = nbproof(single, "run")
    assert again.returncode == 0 and "Traceback" not in again.stdout, again.stdout
    assert (single / "dvc.lock").read_bytes() == lock and results(single) == made
    assert wait_for(lambda: not list(temporary.glob("nbproof-*")), 5)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_lock_that_a_kill_tore_is_brought_back(single, recorded):
    assert nbproof(single, "run").returncode == 0
    lock = (single / "dvc.lock").read_bytes()
    (single / run.BACKUP).write_bytes(lock if recorded else b"")
    (single / "dvc.lock").write_bytes(lock[: len(lock) // 2])
    done = nbproof(single, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == set(), done.stdout
    assert (single / "dvc.lock").read_bytes() == lock and not (single / run.BACKUP).exists()


@pytest.mark.parametrize("torn", ["", '{"write": {"a'])
def test_a_list_of_dvc_that_a_kill_tore_does_not_stop_the_next_run(finished, torn):
    """Nor is it in the way that the run starts in a folder of the project."""
    (finished / ".dvc" / "tmp" / "rwlock").write_text(torn)
    edit_params(finished, lambda content: content["models"]["near"].update(step=1))
    done = nbproof(finished / "notebooks", "run")
    assert done.returncode == 0 and stages_run(done.stdout) == {"near", "compare"}, done.stdout
    assert git_status(finished).split()[1::2] == [
        "dvc.lock", "metrics/answers.csv", "metrics/compare.json", "metrics/near.csv",
        "metrics/near.json", "params.yaml"]


def test_two_runs_at_once(single):
    cells(single, "import time\ntime.sleep(3)", WRITES)
    both = [subprocess.Popen([sys.executable, "-m", "nbproof", "run"], cwd=single, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    printed = [process.communicate()[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], printed
    assert ("Another run is at work in this folder: wait for it to end, then run again.\n"
            in printed)


@posix
def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(single):
    """Files may not grow past so many KiB, as on a disk with no room."""
    cells(single, "print('x' * 900_000)")
    for limit in (4, 512):
        done = command(single, "bash", "-c",
                       f"ulimit -f {limit}; exec {sys.executable} -m nbproof run --jobs 1")
        last = done.stdout.strip().splitlines()[-1]
        assert done.returncode != 0 and "Traceback" not in done.stdout, done.stdout
        assert ("room" in last or "too large" in last) and len(last) < 400, done.stdout
        reports = single / "reports"
        assert not list(reports.glob("*x.ipynb*")) and not list(reports.glob(".*x*"))
    cells(single, WRITES)
    assert nbproof(single, "run").returncode == 0
