"""A kernel that is forked from the run's warm process (nbproof/warm.py), where there is one; else started as usual.

Between the stage and the kernel stands a keeper, a process that the warm one forked for this kernel alone and that is
the kernel's parent: it passes signals on, says how the kernel ended, and ends all that is left when the stage ends.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

from nbproof.runner import tether

PLACE = "NBPROOF_WARM"  # the variable that names the warm process's socket
MODULE = "nbproof.runner.kernel"
PATIENCE = 300  # seconds that a stage waits for a warm process that is still importing


class ForkedKernel:
    """What jupyter_client needs of a subprocess.Popen, of a kernel whose parent is the keeper at `connection`."""

    stdin = stdout = stderr = None

    def __init__(self, connection: socket.socket, lines: BinaryIO, pid: int):
        self.connection, self.lines, self.pid, self.returncode = connection, lines, pid, None

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while the kernel runs."""
        if self.returncode is None and _is_readable(self.connection):
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once there is one; a keeper that ended without a word was killed, and the kernel with it."""
        if self.returncode is None:
            if timeout is not None and not _is_readable(self.connection, timeout):
                raise subprocess.TimeoutExpired(MODULE, timeout)
            try:
                self.returncode = int(self.lines.readline() or -signal.SIGKILL)
            except ConnectionError:
                self.returncode = -signal.SIGKILL
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Let the keeper signal the kernel and its group; nothing where it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ConnectionError):  # it ended just now
                self.connection.sendall(bytes([number]))

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork(command: list[str], folder: str, environment: dict[str, str]) -> ForkedKernel | None:
    """Have the kernel that `command` would start forked by the warm process; None where there is none, or it refuses.

    The connection to the keeper stays open as long as this process lives: by its end the keeper knows ours.
    """
    import psutil

    place = os.environ.get(PLACE)
    if not place or sys.platform != "linux":
        return None
    environment = environment | {"JPY_PARENT_PID": str(os.getpid())}  # as jupyter_client's launcher
    request = {"arguments": command[command.index(MODULE) + 1:], "folder": folder, "environment": environment}
    connection = socket.socket(socket.AF_UNIX)
    try:
        request["traits"] = traits()
        connection.settimeout(PATIENCE)
        connection.connect(place)
        with Path(os.devnull).open("rb") as nothing:
            send(connection, request, [nothing.fileno(), 1, 2])
        lines = connection.makefile("rb", buffering=0)  # what was read already, select would not know
        said = json.loads(lines.readline() or '{"refused": "the warm process has ended"}')
        if "refused" in said:
            raise ConnectionError(said["refused"])
        tether.KEEPERS.append(psutil.Process(said["keeper"]))
    except (OSError, ValueError, psutil.NoSuchProcess) as error:  # it ended, is too slow, or refuses
        connection.close()
        if os.environ.get("NBPROOF_DEBUG"):
            print(f"The kernel is started, not forked: {error}", file=sys.stderr)
        return None
    connection.settimeout(None)
    return ForkedKernel(connection, lines, said["pid"])


def traits() -> dict:
    """What a process gets from the one that starts it, and a forked kernel would not get from its stage."""
    import resource

    limits = {name: list(resource.getrlimit(getattr(resource, name)))
              for name in dir(resource) if name.startswith("RLIMIT_")}
    mask = os.umask(0o077)
    os.umask(mask)
    group = Path("/proc/self/cgroup").read_text(encoding="utf-8")
    return {"python": sys.executable, "limits": limits, "mask": mask, "group": group, "user": os.geteuid(),
            "nice": os.getpriority(os.PRIO_PROCESS, 0), "processors": sorted(os.sched_getaffinity(0))}


def send(connection: socket.socket, request: dict, descriptors: list[int]) -> None:
    """Send a request to the warm process, with descriptors that become the kernel's standard ones."""
    content = json.dumps(request).encode()
    socket.send_fds(connection, [len(content).to_bytes(8, "big")], descriptors)
    connection.sendall(content)


def receive(connection: socket.socket, number: int) -> tuple[dict, list[int]]:
    """The request of a stage, and its `number` descriptors."""
    length, descriptors, _, _ = socket.recv_fds(connection, 8, number)
    content = b""
    while len(content) < int.from_bytes(length, "big"):
        if not (part := connection.recv(1 << 20)):
            raise ConnectionError("the stage has ended")
        content += part
    return json.loads(content), list(descriptors)


def _is_readable(connection: socket.socket, timeout: float = 0) -> bool:
    import select

    return bool(select.select([connection], [], [], timeout)[0])
