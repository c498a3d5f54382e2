"""The kernel's process: ipykernel, which ends with the stage that started it. Imports are few."""

import atexit
import json
import os

from nbproof.stage.tether import die_with_parent, follow_parent

die_with_parent()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=follow_parent)  # what a cell forks ends with the kernel
# Registered first, so called last: taking large libraries apart at the end costs a second and does nothing.
atexit.register(os._exit, 0)

from ipykernel import compiler, kernelapp  # noqa: E402
from jupyter_client.jsonutil import json_default  # noqa: E402

from nbproof.notebook.progress import say  # noqa: E402
from nbproof.stage import arithmetic  # noqa: E402

# A warning names the file of its cell. There is no setting for the folder, whose name is else that of this process.
compiler.get_tmp_directory = lambda: "cells"
told = []


def tell(_=None) -> None:
    """After each cell: say which arithmetic this process has, where that is new."""
    now = {"arithmetic": arithmetic.process(), "changed": arithmetic.changed()}
    if told[-1:] != [now]:
        told.append(now)
        say(**now)


app = kernelapp.IPKernelApp.instance()
app.initialize()
packed = app.session.pack


def pack(message: object) -> bytes:
    """A message as bytes. Half of a letter (a lone surrogate) is in no encoding, and costs itself, not all the text."""
    try:
        return packed(message)
    except UnicodeError:
        return json.dumps(message, default=json_default, ensure_ascii=False).encode(errors="replace")


app.session.pack = pack
app.shell.events.register("post_run_cell", tell)
app.start()
