"""The kernel's process: ipykernel, which ends with the process that started it. Imports are few."""

import atexit
import json
import os

from nbproof.runner import determinism, tether

told = []


def main() -> None:
    """Serve one notebook, by the arguments of this process."""
    tether.die_with_parent()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=tether.follow_parent)  # what a cell forks ends with the kernel
    from ipykernel import compiler, kernelapp

    # A warning names the file of its cell. There is no setting for the folder, whose name is else this process's.
    compiler.get_tmp_directory = lambda: "cells"
    app = kernelapp.IPKernelApp.instance()
    app.initialize()
    app.session.pack = packing(app.session.pack)
    app.shell.events.register("post_run_cell", tell)
    app.start()


def tell(_=None) -> None:
    """After each cell: say which arithmetic this process has, where that is new."""
    from nbproof.notebook.progress import say

    now = {"arithmetic": determinism.process(), "changed": determinism.changed()}
    if told[-1:] != [now]:
        told.append(now)
        say(**now)


def packing(packed):
    """`packed`, which makes bytes of a message, for any text.

    Half of a letter (a lone surrogate) is in no encoding, and costs itself, not all the text.
    """
    from jupyter_client.jsonutil import json_default

    def pack(message: object) -> bytes:
        try:
            return packed(message)
        except UnicodeError:
            return json.dumps(message, default=json_default, ensure_ascii=False).encode(errors="replace")

    return pack


if __name__ == "__main__":
    # Registered first, so called last: taking large libraries apart at the end costs a second and does nothing.
    atexit.register(os._exit, 0)
    main()
