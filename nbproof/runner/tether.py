"""Ends this process when another one ends, so that nothing goes on writing after a kill."""

import ctypes
import os
import signal
import sys
import threading
import time

from nbproof.notebook.errors import UserError

KEEPERS = []  # processes (psutil) that are not below this one, and hold kernels of it: forked.py
SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh", "cmd.exe", "powershell.exe", "pwsh"}


def die_with_parent() -> None:
    """SIGKILL when the parent dies: at once on Linux (prctl(2), PR_SET_PDEATHSIG), within half a second elsewhere."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        import psutil

        die_with([psutil.Process().parent()])


def follow_parent() -> None:
    """In a process that was forked: SIGKILL within half a second of the parent's end.

    Not by prctl(2): its signal comes when the thread ends that forked, which may be a short one of a pool.
    """
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def adopt_orphans() -> None:
    """Let what this process's children leave behind become its own (Linux; prctl(2), PR_SET_CHILD_SUBREAPER)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1)


def end_children() -> list[str]:
    """End every process below this one, or below a keeper; the commands of those that were still at work."""
    import psutil

    ended = []
    for child in [child for each in (psutil.Process(), *KEEPERS) for child in _below(each)]:
        try:
            if child.status() != psutil.STATUS_ZOMBIE:
                ended.append(" ".join(child.cmdline())[:80])
                child.kill()
        except psutil.NoSuchProcess:
            continue
    return ended


def _below(process) -> list:
    import psutil

    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:  # a keeper that was killed; its kernel went with it
        return []


def die_with(processes: list) -> None:
    """End when any of `processes` (psutil) ends; looked at twice a second."""
    import psutil

    def lives(process) -> bool:  # one that its parent has not asked for yet, a zombie, does not
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def watch():
        while all(map(lives, processes)):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def die_with_starter() -> None:
    """End with whoever started this stage: the nearest ancestor that is no shell, and the run above it.

    NBPROOF_STARTED_BY is the process id of that run.
    """
    import psutil

    ancestors = psutil.Process().parents()
    starter = next((each for each in ancestors if each.name() not in SHELLS), None)
    above = os.environ.get("NBPROOF_STARTED_BY")
    run = [each for each in ancestors if str(each.pid) == above]
    if above and not run:  # it was killed before this stage came to life, and DVC still starts what it was told to
        raise UserError("The run that started this stage has ended: nothing is done.")
    die_with([each for each in (starter, *run) if each])
