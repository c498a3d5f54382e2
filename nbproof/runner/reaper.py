"""Ends every process that a run has started, however the run itself ends.

All of them carry the mark of the session in their environment, which a process hands down to
whatever it starts. One watcher beside the run waits for the end of a pipe that the run holds open:
after a kill, it ends what is left and removes the session's folder.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "NBPROOF_RUN"


@dataclass(frozen=True)
class Session:
    """A folder for the sockets of kernels, whose name marks the processes of this session."""

    folder: Path

    def mark(self, stage: str = "") -> str:
        """Return the value of MARK for processes of `stage`."""
        return f"{self.folder.name}/{stage}"

    def end(self, stage: str = "") -> list[str]:
        """End what `stage`, or any stage, has started and left; return the commands."""
        return end(self.mark(stage))


@contextlib.contextmanager
def session(parent: int = 0) -> Iterator[Session]:
    """Watch over this process, and end what it started with the block.

    If `parent` is the process id of a program, its end also ends this process.
    """
    folder = Path(tempfile.mkdtemp(prefix="nbproof-", dir=short_folder()))
    command = [sys.executable, "-I", __file__, str(folder), str(os.getpid()), str(parent)]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield Session(folder)
    finally:
        end(f"{folder.name}/")
        watcher.stdin.close()
        watcher.wait()


def short_folder() -> str | None:
    """Return where sockets can be: None for the usual temporary folder, unless its path is long.

    The path of a socket may have 107 bytes.
    """
    return "/tmp" if os.name == "posix" and len(tempfile.gettempdir()) > 60 else None


def end(mark: str) -> list[str]:
    """Kill the processes whose mark begins with `mark`; return their commands, each once."""
    commands = {}
    while left := [process for process in psutil.process_iter() if _is_marked(process, mark)]:
        for process in left:  # one may start another meanwhile, so look until there is none
            with contextlib.suppress(psutil.NoSuchProcess):
                commands[" ".join(process.cmdline())[:200]] = None
                process.kill()
        time.sleep(0.02)
    return [command for command in commands if command]


def _is_marked(process: psutil.Process, mark: str) -> bool:
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and process.environ().get(MARK, "").startswith(mark)
    except (psutil.Error, OSError):  # gone meanwhile, or somebody else's
        return False


def main(folder: str, owner: int, parent: int) -> None:
    """Wait for the end of the owner's pipe, or of the process `parent`; then end what is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    watched = psutil.Process(parent) if parent and psutil.pid_exists(parent) else None
    while not ended.wait(0.5 if watched else None):
        if not watched.is_running() or watched.status() == psutil.STATUS_ZOMBIE:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(owner).kill()
    end(f"{Path(folder).name}/")
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
