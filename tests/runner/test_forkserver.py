"""Forked kernels give the bytes of kernels that are started, and nothing of them lives on."""

import os

import pytest
from projects import edit_yaml, nbproof, notebook, results, stages_run, tiny

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")
SHOWS = (
    "import sys\n\nimport matplotlib.pyplot as plt\nimport numpy as np\nimport pandas as pd\n\n"
    "plt.plot([1, 2]);",
    "pd.DataFrame(np.arange(60).reshape(2, 30))",
    "print(pd.get_option('display.max_columns'), np.__version__, __name__, sys.path[0][-9:])\n"
    "print(len(sys.argv), sys.stdout.isatty(), hash('text'))",
    "import warnings\n\nwarnings.warn('look')",
    "import multiprocessing\n\nmultiprocessing.get_context('fork').Pool(1).map(abs, [-1])",
    "import os\n\nassert 'PRELOADED' not in os.environ\n"
    "sorted(set(os.environ) & {'NBPROOF_OUTPUT', 'OMP_NUM_THREADS', 'PYTHONHASHSEED'})",
    "!echo of a shell",
    "import atexit\n\nfrom nbproof.notebook import write\n\n"
    "_ = atexit.register(write, 'data/at_exit', 'written')",
)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The tiny project with one more notebook, which shows what could differ in a fork."""
    folder = tiny(tmp_path_factory.mktemp("forked") / "project")
    notebook(folder / "notebooks" / "shown.ipynb", *SHOWS)
    stage = {"cmd": "nbproof stage", "deps": ["notebooks/shown.ipynb", "pins.txt"],
             "outs": ["reports/shown.ipynb", "data/at_exit"]}
    edit_yaml(folder / "dvc.yaml", lambda content: content["stages"].update(shown=stage))
    return folder


def preload(folder, *names: str) -> None:
    edit_yaml(folder / "project.yaml", lambda content: content.update(preload=list(names)))


def test_the_same_bytes_as_started_kernels(shown):
    assert nbproof(shown, "run", "--force").returncode == 0
    started, lock = results(shown), (shown / "dvc.lock").read_bytes()
    preload(shown, "numpy", "mlflow.store.tracking.sqlalchemy_store")
    done = nbproof(shown, "run", "--force")
    assert done.returncode == 0 and len(stages_run(done.stdout)) == 5, done.stdout
    forked = results(shown)
    assert [name for name in started | forked if started.get(name) != forked.get(name)] == []
    assert (shown / "dvc.lock").read_bytes() == lock
    assert b"image/png" in forked["reports/shown.ipynb"]


def test_a_forked_kernel_that_is_killed_fails_its_stage(shown):
    preload(shown, "numpy")
    path = shown / "notebooks" / "shown.ipynb"
    before = path.read_text(encoding="utf-8")
    notebook(path, "import os, signal\n\nos.kill(os.getpid(), signal.SIGKILL)")
    try:
        done = nbproof(shown, "run", "--force")
    finally:
        path.write_text(before, encoding="utf-8")
    assert done.returncode == 1 and "the kernel died while this cell ran" in done.stdout
    assert stages_run(done.stdout) == {"data", "near", "far", "compare"}


@pytest.mark.parametrize("name, code, sentence", [
    ("matplotlib.pyplot", 1, "preload must not import matplotlib"),
    ("nmupy", 2, "project.yaml: preload has nmupy, which is not installed: take it out, or add")])
def test_what_cannot_be_preloaded(shown, name, code, sentence):
    preload(shown, "numpy", name)
    done = nbproof(shown, "run", "--force")
    assert done.returncode == code and sentence in done.stdout
