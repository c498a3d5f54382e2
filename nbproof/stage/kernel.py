"""The kernel's process: ipykernel, which ends with the stage that started it. Imports are few."""

import atexit
import os

from nbproof.stage.tether import die_with_parent

die_with_parent()
# Registered first, so called last: taking large libraries apart at the end costs a second and does nothing.
atexit.register(os._exit, 0)

from ipykernel import compiler, kernelapp  # noqa: E402

# A warning names the file of its cell. There is no setting for the folder, whose name is else that of this process.
compiler.get_tmp_directory = lambda: "cells"
kernelapp.launch_new_instance()
