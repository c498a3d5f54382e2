"""The kernel's process: ipykernel, which ends with the stage that started it. Imports are few."""

import atexit
import os

from nbproof.stage.tether import die_with_parent

die_with_parent()
# Registered first, so called last: taking large libraries apart at the end costs a second and does nothing.
atexit.register(os._exit, 0)

from ipykernel import kernelapp  # noqa: E402

kernelapp.launch_new_instance()
