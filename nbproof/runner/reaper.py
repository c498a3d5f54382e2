"""Ends every process that a run has started, however the run itself ends.

All of them carry the mark of the session in their environment, which a process hands down to
whatever it starts. One watcher beside the run looks whether that is still there: after a kill, it
ends what is left and removes the session's folder.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "NBPROOF_RUN"
# A socket's path may have 107 bytes, and the path of TMPDIR may be longer.
TEMPORARY = "/tmp" if os.name == "posix" and len(tempfile.gettempdir()) > 60 else None


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
    folder = Path(tempfile.mkdtemp(prefix="nbproof-", dir=TEMPORARY))
    watched = [str(pid) for pid in (os.getpid(), parent) if pid]
    watcher = subprocess.Popen([sys.executable, "-I", __file__, str(folder), *watched],
                               start_new_session=True)
    try:
        yield Session(folder)
    finally:
        end(f"{folder.name}/")
        shutil.rmtree(folder, ignore_errors=True)
        watcher.kill()
        watcher.wait()


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
    with contextlib.suppress(psutil.Error, OSError):  # somebody else's
        return _is_alive(process) and process.environ().get(MARK, "").startswith(mark)
    return False


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # gone between the two calls
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def main(folder: str, *pids: str) -> None:
    """Wait until one of the processes, the first of which is the run, is gone; end what is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(psutil.NoSuchProcess):
        watched = [psutil.Process(int(pid)) for pid in pids]
        while all(map(_is_alive, watched)):
            time.sleep(0.3)
        watched[0].kill()
    end(f"{Path(folder).name}/")
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
