"""What the fork server imports before any kernel, and how a fork of it becomes a kernel.

This is the server's side: nbproof.runner.forkserver is the run's.
"""

import atexit
import gc
import importlib
import os
import sys
import sysconfig

LIBRARIES = "NBPROOF_PRELOAD"
# These decide while they are imported whether they are in a notebook, or read a terminal's size: a
# fork that has them shows other outputs than a kernel that imports them.
NOT_BEFORE_THE_KERNEL = {"IPython", "ipykernel", "matplotlib", "tqdm"}

sys.dont_write_bytecode = False  # a flag of the run's that a started kernel does not have
for name in os.environ.get(LIBRARIES, "").split():
    importlib.import_module(name)
for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
    del sys.modules[name]  # torch imports it for its downloads: a notebook's tqdm is its own
gc.freeze()  # a fork's collections leave these objects alone, and so its memory shared


def become_kernel(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """Serve one notebook in this fork, as a process that was started for it would; do not return.

    `folder` is the working folder.
    """
    os.setsid()  # a group of its own: what a cell forks is ended with it
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    scripts = sysconfig.get_path("scripts")  # where the command nbproof is
    ours = environment.get("PYTHONPATH", "").split(os.pathsep)  # of a project's notebooks, say
    sys.path[:] = dict.fromkeys(
        [folder, *(path for path in [*ours, *sys.path] if path and path != scripts)])
    sys.argv = arguments
    if wrong := sorted(NOT_BEFORE_THE_KERNEL & sys.modules.keys()):
        sys.stderr.write(f"project.yaml: preload must not import {', '.join(wrong)}, which look on "
                         "import whether they are in a notebook: take the library that does out.\n")
        os._exit(1)
    if "pandas" in sys.modules:  # which shows as many columns as fit where it finds a terminal
        sys.modules["pandas"].set_option("display.max_columns", 20)
    if "numpy" in sys.modules:  # else all forks have one state; Python's own random starts anew
        sys.modules["numpy"].random.seed()
    from nbproof.runner import kernel

    kernel.main()
    atexit._run_exitfuncs()  # a fork does not call what a notebook has registered, as programs do
    os._exit(0)  # taking large libraries apart costs a second for nothing
