"""What a notebook reads and writes is what dvc.yaml lists, or the stage says which lines to add."""

import subprocess

import pytest
from projects import commit, nbproof, notebook, project

from nbproof.notebook.errors import UserError
from nbproof.pipeline import deps, observation
from nbproof.pipeline.dag import Stage
from nbproof.runner import StageFailure

DVC_YAML = """\
stages:
  x:
    cmd: nbproof stage
    deps: [notebooks/x.ipynb]
    outs: [reports/x.ipynb]
"""


@pytest.fixture
def folder(tmp_path):
    """A project of one stage, beside whose notebook are data, and a module."""
    made = project(tmp_path / "p", dvc_yaml=DVC_YAML, project_yaml="name: tiny\n")
    for name, text in {"raw.csv": "a,b\n1,2\n", "notebooks/helper.py": "H = 1\n",
                       "notebooks/package/part.py": ""}.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    return made


def run(folder, *cells: str, code: int = 1) -> str:
    """What a run prints of a notebook with these cells."""
    notebook(folder / "notebooks" / "x.ipynb", *cells)
    done = nbproof(folder, "run")
    assert done.returncode == code, done.stdout
    return done.stdout


READS = {
    "import": "import helper",
    "package": "from package import part",
    "run": "%run helper.py",
    "exec": "exec(open('helper.py').read())",
    "lazy": "import importlib\nimportlib.import_module('helper')",
    "open": "open('../raw.csv').read()",
    "pathlib": "from pathlib import Path\nPath('../raw.csv').read_bytes()",
    "pandas": "import pandas\npandas.read_csv('../raw.csv')",
    "numpy": "import numpy\nnumpy.genfromtxt('../raw.csv', delimiter=',')",
    "chdir": "import os\nos.chdir('..')\nopen('raw.csv').read()",
    "python": "import subprocess, sys\n"
              "subprocess.run([sys.executable, '-c', 'open(\"../raw.csv\").read()'], check=True)",
    "fork": "import multiprocessing\ncontext = multiprocessing.get_context('fork')\n"
            "child = context.Process(target=lambda: open('../raw.csv').read())\n"
            "child.start(); child.join()",
    "symlink": "import os\nopen('../link.csv').read()",
}


@pytest.mark.parametrize("way", READS)
def test_a_file_that_is_read_is_a_dep(folder, way):
    (folder.parent / "outside.csv").write_text("x\n")
    (folder / "link.csv").symlink_to(folder.parent / "outside.csv")
    wanted = {"symlink": "link.csv", "package": "notebooks/package"}.get(way, "raw.csv")
    if "helper" in READS[way]:
        wanted = "notebooks/helper.py"
    output = run(folder, "1 + 1", READS[way], "print('never')")
    assert "failed at cell 2" in output and f"add `- {wanted}` to its deps" in output


WRITES = {
    "open": "open('made.txt', 'w').write('x')",
    "pandas": "import pandas\npandas.DataFrame({'a': [1]}).to_csv('made.txt')",
    "renamed": "import os\nopen('.made', 'w').close()\nos.replace('.made', 'made.txt')",
    "python": "import subprocess, sys\n"
              "subprocess.run([sys.executable, '-c', 'open(\"made.txt\", \"a\").close()'])",
    "program": "import subprocess\nsubprocess.run('echo x > made.txt', shell=True)",
    "parquet": "import pyarrow, pyarrow.parquet\n"
               "pyarrow.parquet.write_table(pyarrow.table({'a': [1]}), 'made.txt')",
    "sqlite": "import sqlite3\nbase = sqlite3.connect('made.txt')\n"
              "base.execute('CREATE TABLE a (b)')\nbase.close()",
}


@pytest.mark.parametrize("way", WRITES)
def test_a_file_that_is_written_is_an_out(folder, way):
    if way == "parquet":
        pytest.importorskip("pyarrow")
    output = run(folder, WRITES[way] + ";", "open('made.txt', 'rb').read();")  # its own: no dep
    assert "failed because dvc.yaml: the stage x does not list all that notebooks/x.ipynb writes: "\
           "add `- notebooks/made.txt` to its outs (nbproof deps --fix does)" in output


NO_ALARM = """\
import pathlib, sys, tempfile
for name in ("__pycache__", ".cache", "../scratch", "mlruns", "../.tox"):
    pathlib.Path(name).mkdir(exist_ok=True)
    (pathlib.Path(name) / "a.txt").write_text("x")
    (pathlib.Path(name) / "a.txt").read_text()
pathlib.Path("temporary.csv").write_text("x")
pathlib.Path("temporary.csv").read_text()
pathlib.Path("temporary.csv").unlink()
tempfile.NamedTemporaryFile(dir=".").write(b"x")
open("../.git/HEAD").read(), open("../params.yaml").read(), open("../dvc.yaml").read()
import matplotlib.pyplot as plt
plt.plot([1, 2]);
"""


def test_caches_and_temporary_files_are_no_alarm(folder):
    (folder / "env").mkdir()
    (folder / "env/pyvenv.cfg").touch()
    cells = [NO_ALARM, "import subprocess\nsubprocess.run('date > ../env/log', shell=True);"]
    assert "warning" not in run(folder, *cells, code=0)


def test_a_file_both_read_and_written_is_refused(folder):
    (folder / "notebooks/count.txt").write_text("1")
    cell = "n = int(open('count.txt').read())\nopen('count.txt', 'w').write(str(n + 1));"
    assert "reads notebooks/count.txt and writes it again: let it write another file" in run(
        folder, cell)


def test_a_warning_instead(folder):
    (folder / "project.yaml").write_text("name: tiny\nobserve: warn\n")
    output = run(folder, "open('../raw.csv').read();", "import helper", code=0)
    assert output.count("x: warning: dvc.yaml: the stage x does not list") == 1


def test_deps_lists_and_fixes_what_the_last_run_read(folder):
    (folder / "dvc.yaml").write_text(DVC_YAML.replace("    outs:", "    # of x\n    outs:"))
    run(folder, "open('../raw.csv').read()\nopen('made.txt', 'w').close()")
    done = nbproof(folder, "deps", "x")
    assert done.returncode == 1 and "`- raw.csv`" in done.stdout
    assert nbproof(folder, "deps", "x", "--fix").returncode == 0
    assert "every cell ran" in nbproof(folder, "run").stdout
    assert "# of x" in (folder / "dvc.yaml").read_text()
    assert nbproof(folder, "deps").stdout == "dvc.yaml lists all that the stages read and write.\n"


def test_a_file_that_may_be_anothers_is_a_warning(folder, inside):
    inside(folder)
    told: list[dict] = []
    with observation.Observation(small(()), []) as one:
        with observation.Observation(small(()), []):
            pass
        (folder / "by_a_library.h5").write_text("x")
        (folder / "notes.md").write_text("by a person")
    one.finish(told.append)
    [message] = [event["message"] for event in told]
    assert message.startswith("warning: while it ran, by_a_library.h5 changed, which no stage")
    with observation.Observation(small(()), []) as alone:
        (folder / "by_a_library.h5").write_text("other")
    with pytest.raises(StageFailure, match="add `- by_a_library.h5` to its outs"):
        alone.finish(told.append)


def small(deps_: tuple[str, ...], outs: tuple[str, ...] = ()) -> Stage:
    return Stage("x", "x", "notebooks/x.ipynb", (), deps_, outs, frozenset())


def test_what_git_ignores_and_no_stage_makes_is_refused(folder, inside):
    inside(folder)
    (folder / ".gitignore").write_text("data/\n")
    (folder / "data").mkdir()
    (folder / "data/raw.csv").write_text("a\n")
    with pytest.raises(UserError, match="data/raw.csv is a dep in dvc.yaml that git ignores"):
        deps.check_sources([small(("data/raw.csv",))])
    deps.check_sources([small(("data/raw.csv",)), small((), ("data/raw.csv",))])
    (folder / "data/raw.csv.dvc").touch()
    deps.check_sources([small(("data/raw.csv",))])


@pytest.mark.parametrize("attributes, config, is_refused", [
    ("* text=auto eol=lf\n", "false", True), ("", "input", True), ("", "false", False),
    ("* text=auto\n*.csv -text\n", "true", False)])
def test_line_ends_that_git_would_change(folder, inside, attributes, config, is_refused):
    inside(folder)
    (folder / ".gitattributes").write_text(attributes)
    subprocess.run(["git", "config", "core.autocrlf", config], check=True)
    (folder / "raw.csv").write_bytes(b"a,b\r\n1,2\r\n")
    assert deps.changed_by_git(["raw.csv"]) == ["raw.csv"] * is_refused
    commit(folder)
    assert deps.changed_by_git(["raw.csv"]) == ["raw.csv"] * is_refused
    if is_refused:
        with pytest.raises(UserError, match="the line `raw.csv -text` into .gitattributes"):
            deps.check_sources([small(("raw.csv",))])


def test_a_module_of_a_package_is_its_folder(folder, inside):
    inside(folder)
    (folder / "notebooks/tiny").mkdir()
    paths = ["notebooks/tiny/a.py", "notebooks/tiny/b.py", "notebooks/helper.py", "lib/far.py"]
    sentence = observation.deps_sentence(small(()), paths)
    assert "add `- notebooks/tiny`, `- notebooks/helper.py`, `- lib/far.py` to" in sentence
