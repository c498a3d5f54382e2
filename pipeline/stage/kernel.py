"""The kernel's process: ipykernel, tethered to the stage that started it. Run as a script, so imports are few."""

import atexit
import os
import sys
from pathlib import Path

here = str(Path(__file__).parent)
sys.path[:] = [entry for entry in sys.path if entry != here]  # a notebook must not find this folder's modules
sys.path.insert(0, str(Path(__file__).parents[2]))
from pipeline.stage.tether import die_with_parent  # noqa: E402

del sys.path[0]
die_with_parent()
atexit.register(os._exit, 0)  # registered first, so called last: taking large libraries apart costs a second and does nothing

from ipykernel import kernelapp  # noqa: E402

kernelapp.launch_new_instance()
