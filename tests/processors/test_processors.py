"""Every output of the example has the same bytes on other processors, which qemu-user emulates.

The emulator stands in front of the kernels' own command: all that makes a result runs in it, the machinery does not.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
from projects import command, commit, copy_of_project, edit_params, results, stages_run

from nbproof.stage import arithmetic

EMULATOR = "qemu-x86_64"
SMALL = {
    "cnn": {"width": 8, "top": 16, "epochs": 4, "batch": 256},  # of four epochs the second sees a share of the images
    "mlp": {"hidden": 32, "epochs": 2, "part_steps": 8}, "linear": {"epochs": 2, "part_steps": 8},
}


def copy(folder: Path) -> Path:
    """A copy of the example that trains for a few steps on the small digits, and has no floors to reach by them."""
    def change(content):
        content["data"]["source"] = "digits"
        content["know"]["images"] = 100
        for name, values in SMALL.items():
            content["models"][name].update(values)

    copy_of_project(folder)
    edit_params(folder, change)
    strange = folder / "notebooks" / "mnist" / "strange.py"
    few = re.sub(r"(?m)^(MOST.*) = 6000, (\d+), 600,", r"\1 = 300, \2, 20,", strange.read_text(encoding="utf-8"))
    assert "300," in few
    strange.write_text(few, encoding="utf-8")
    for name in SMALL:
        path = folder / "notebooks" / f"{name}.ipynb"
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r'(\\"digits\\": )0\.\d+', r"\g<1>0.0", text), encoding="utf-8")
    commit(folder)
    return folder


def ran(folder: Path, **environment: str) -> dict[str, bytes]:
    """The results of one run of everything in the copy at `folder`."""
    # The command, which stages have, too: not the copy's own package, of which no kernel would be forked for them.
    done = command(copy(folder), "nbproof", "run", "--jobs", "2", **environment)
    assert done.returncode == 0 and len(stages_run(done.stdout)) == 6, done.stdout
    return results(folder)


@pytest.fixture(scope="module")
def native(tmp_path_factory) -> dict[str, bytes]:
    return ran(tmp_path_factory.mktemp("native") / "project")


@pytest.mark.skipif(not shutil.which(EMULATOR), reason=f"{EMULATOR} is not installed (Debian: apt install qemu-user)")
@pytest.mark.skipif(arithmetic.machine() != arithmetic.NAME, reason="this machine has another arithmetic to begin with")
@pytest.mark.parametrize("processor", ["Haswell-noTSX", "Skylake-Client-noTSX-IBRS", "EPYC-Rome"])
def test_another_processor_gives_the_same_bytes(native, processor, tmp_path):
    emulated = ran(tmp_path / "project", NBPROOF_EMULATOR=f"{EMULATOR} -cpu {processor}", CELL_TIMEOUT="1200")
    assert sorted(emulated) == sorted(native)
    assert [name for name in native if native[name] != emulated[name]] == []
    assert os.environ["MKL_CBWR"] == "COMPATIBLE", "the native run had the settings, too"
