"""`nbproof test` agrees with what a run gives, and names the cell that shows something else."""

from projects import cells, nbproof, notebook, project

SAME = ("x = 1\nx;", "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
        "import warnings\nwarnings.warn('old')", "import pandas\npandas.DataFrame({'a': range(3)})")
DVC_YAML = """\
stages:
  x:
    cmd: nbproof stage
    deps: [notebooks/x.ipynb]
    outs: [made.txt, folder, reports/x.ipynb]
"""
WRITES = "import os\nos.makedirs('../folder')\nopen('../folder/a', 'w').write('a')\n" \
         "open('../made.txt', 'w').write('m');"


def test_what_a_run_repeats_passes_and_results_stay(tmp_path):
    folder = project(tmp_path / "p", dvc_yaml=DVC_YAML, project_yaml="name: tiny\n")
    notebook(folder / "notebooks" / "x.ipynb", WRITES, *SAME)
    assert "x must run first: nbproof run" in nbproof(folder, "test").stdout
    assert nbproof(folder, "run").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*a*t*") if path.is_file()}
    done = nbproof(folder, "test", "x")
    assert (done.returncode, done.stdout) == (0, "x: the same outputs\n")
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert not (folder / ".dvc/tmp/test").exists()


def test_a_cell_that_shows_something_else_is_named(single):
    cells(single, "from nbproof.notebook import write\nwrite('models/x.txt', '1');",
          "import os\nprint(os.getpid())")
    assert nbproof(single, "run").returncode == 0
    done = nbproof(single, "test")
    assert done.returncode == 1 and done.stdout.startswith("x: cell 4 shows ...")
    assert " instead of ..." in done.stdout
