"""Every output of the example has the same bytes on other processors, which qemu-user emulates.

The emulator stands in front of the kernels' own command: all that makes a result runs in it, and
nbproof does not.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from projects import (
    ROOT,
    command,
    commit,
    copy_of_project,
    edit_params,
    results,
    said,
    stages_run,
)

from nbproof.runner import determinism

EMULATOR = "qemu-x86_64"
SMALL = {
    "cnn": {"width": 8, "top": 16, "epochs": 4, "batch": 256},  # the second sees a part
    "mlp": {"hidden": 32, "epochs": 2}, "linear": {"epochs": 2, "batch": 16},
}

# By the copy's own package: a kernel that is forked takes it from the copy's folder in any case,
# and its files are below the project, so another package would miss them among the deps.
WHOLE = (sys.executable, "-m", "nbproof", "run", "--jobs", "2")
CNN = ("dvc", "repro", "train@cnn")
STAGES = {WHOLE: 9, CNN: 2}
pytestmark = [
    pytest.mark.skipif(not shutil.which(EMULATOR),
                       reason=f"{EMULATOR} is missing (Debian: apt install qemu-user)"),
    pytest.mark.skipif(not determinism.machine().startswith(determinism.NAME),
                       reason="this machine has no AVX2 itself"),
]


def copy(folder: Path) -> Path:
    """A copy of the example that trains for a few steps on the small digits, without floors."""
    def change(content):
        content["data"]["source"] = "digits"
        content["know"]["images"] = 100
        for name, values in SMALL.items():
            content["models"][name].update(values)

    copy_of_project(folder)
    edit_params(folder, change)
    for name, pattern, small in (
        ("production/ood_detector.py", r"(?m)^(DIGITS.*) = [\d_]+, (\d+), 600,",
         r"\1 = 600, \2, 20,"),
        ("mnist/sources.yaml", r"floors: .*", "floors: {}"),
    ):
        path = folder / "notebooks" / name
        text, count = re.subn(pattern, small, path.read_text(encoding="utf-8"))
        assert count, name
        path.write_text(text, encoding="utf-8")
    commit(folder)
    return folder


def ran(folder: Path, *words: str, **environment: str) -> dict[str, bytes]:
    """The results in the copy at `folder` after the command `words`."""
    done = command(copy(folder), *words, **environment)
    assert done.returncode == 0 and len(stages_run(done.stdout)) == STAGES[words], done.stdout
    return results(folder)


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """The results of a command on this machine's own processor."""
    return functools.cache(lambda words: ran(tmp_path_factory.mktemp("native") / "project", *words))


def emulated(processor: str) -> dict[str, str]:
    """The variables of a command whose kernels run on `processor`.

    The emulator warns of what it lacks of it, in the output of each thread, so that is left out.
    """
    done = subprocess.run([EMULATOR, "-cpu", processor, sys.executable, "-S", "-c", ""],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    missing = [f"{name}=off" for name in re.findall(r"CPUID\S*:E[A-D]X\.(\S+)", done.stderr)]
    return {"NBPROOF_EMULATOR": f"{EMULATOR} -cpu {','.join([processor, *missing])}",
            "NBPROOF_CELL_TIMEOUT": "1200"}


@pytest.mark.parametrize("words, processor", [
    (CNN, "Haswell-noTSX"),  # the quicker part: augmentation, training, export, all of one model
    *((WHOLE, name) for name in ("Haswell-noTSX", "Skylake-Client-noTSX-IBRS", "EPYC-Rome"))])
def test_the_example_has_the_same_bytes(native, words, processor, tmp_path):
    natively, there = native(words), ran(tmp_path / "project", *words, **emulated(processor))
    assert [name for name in natively | there if natively.get(name) != there.get(name)] == []
    assert os.environ["MKL_CBWR"] == "COMPATIBLE", "the native run had the settings, too"


@pytest.mark.parametrize("name, notebooks", [
    ("churn", ["notebooks/churn.ipynb"]), ("energy", ["1 clean.ipynb", "2 model.ipynb"]),
])
def test_notebooks_as_people_have_them_have_the_same_bytes(name, notebooks, tmp_path):
    folder = shutil.copytree(ROOT / "tests" / "foreign" / name, tmp_path / "mine")
    commit(folder, "init", "-q", "-b", "main")
    for words in (["init"], *(["add", path, "--yes"] for path in notebooks), ["run"]):
        said(folder, *words)
    commit(folder)
    for processor in ("Haswell-noTSX", "Skylake-Client-noTSX-IBRS"):
        output = said(folder, "run", "--force", **emulated(processor))
        assert stages_run(output) == {Path(path).stem for path in notebooks}, output
        assert re.search(r"All \d+ results are the committed ones, byte for byte", output), output
