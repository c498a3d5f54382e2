"""Ends what a stage's notebook started where the stage itself was killed, and can no longer do it.

All that a notebook starts inherits the mark of its stage in its environment, in whatever session or group it is.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

MARK = "NBPROOF_STAGE"


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """A process that ends all that has this stage's mark, should this process end inside the block."""
    kept, mark = dict(os.environ), uuid.uuid4().hex
    kept.pop(MARK, None)
    guard = subprocess.Popen([sys.executable, "-I", __file__, mark], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, cwd=os.path.sep, env=kept, start_new_session=True)
    os.environ[MARK] = mark
    try:
        yield
    finally:
        guard.communicate(b"ended")


def wait(mark: str) -> None:
    """Until the stage says that it has ended: nothing. Where it ends without a word: end all with its `mark`."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they are meant for the stage
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read():
        return
    for _ in range(20):  # what is about to start a process may have done so meanwhile
        if not _end(mark):
            return
        time.sleep(0.1)


def _end(mark: str) -> int:
    """Kill every process with this mark; how many there were."""
    import psutil

    found = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                process.kill()
                found += 1
    return found


if __name__ == "__main__":
    wait(sys.argv[1])
