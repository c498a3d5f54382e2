"""A real Ray cluster on loopback: a head and nodes, each with its own `ray start`, with token authentication."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil


class Cluster:
    """A head on 127.0.0.2 and nodes on 127.0.0.3 and up; `variables` is what a driver needs to use it."""

    def __init__(self, folder: Path, cpus: int, python: Path):
        self.folder, self.cpus, self.python = folder, cpus, python
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        # as nbproof.sweep.cluster does: a node starts sooner
        (folder / "rfc3987_syntax.py").write_text("raise ImportError")
        with socket.socket() as probe:
            probe.bind(("127.0.0.2", 0))
            self.port = probe.getsockname()[1]
        self.address = f"127.0.0.2:{self.port}"
        self.security = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0",
                         "RAY_raylet_start_wait_time_s": "180", "PYTHONPATH": str(folder)}  # a machine may be busy
        self.variables = self.security | {"RAY_ADDRESS": self.address}
        self.processes: list[subprocess.Popen] = []

    def start(self, *options: str, cpus: int | None = None) -> subprocess.Popen:
        number = len(self.processes) + 2
        command = [
            str(self.python.with_name("ray")), "start", "--block", f"--node-ip-address=127.0.0.{number}",
            "--disable-usage-stats",
            f"--num-cpus={self.cpus if cpus is None else cpus}", "--object-store-memory=300000000",
            f"--temp-dir={self.folder / f'n{number}'}", *options,  # as a machine has its own disk
        ]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        log = (self.folder / f"node{number}.log").open("w")
        process = subprocess.Popen(command, env=clean | self.security, stdout=log, stderr=log, start_new_session=True,
                                   cwd=self.folder)
        log.close()
        self.processes.append(process)
        self._until("Ray runtime started", self.folder / f"node{number}.log", process)
        return process

    def _until(self, words: str, log: Path, process: subprocess.Popen) -> None:
        ends = time.monotonic() + 200
        while words not in log.read_text():
            assert process.poll() is None and time.monotonic() < ends, log.read_text()
            time.sleep(0.2)

    def node_of(self, process: psutil.Process) -> int:
        """The number of the node that `process` is a part of."""
        ours = {each.pid for each in [process, *process.parents()]}
        return next(number for number, each in enumerate(self.processes) if each.pid in ours)

    def kill(self, node: int) -> None:
        """End the node with that number (0 is the head) and all of its processes at once, as a power cut does."""
        process = self.processes[node]
        try:
            family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        except psutil.NoSuchProcess:
            return
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
        process.wait(30)


@contextlib.contextmanager
def cluster(nodes: int, cpus: int = 1, head_cpus: int | None = None,
            python: Path = Path(sys.executable), options: tuple[str, ...] = ()) -> Iterator[Cluster]:
    """`nodes` nodes, the head among them, of `cpus` processors each (the head of `head_cpus`), for the block.

    The nodes run in the environment of `python`; `options` are the head's.
    """
    with tempfile.TemporaryDirectory(prefix="cluster-", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder), cpus, python)
        try:
            made.start("--head", f"--port={made.port}", "--include-dashboard=false", *options,
                       cpus=head_cpus)
            for _ in range(nodes - 1):
                made.start(f"--address={made.address}")
            yield made
        finally:
            for node in reversed(range(len(made.processes))):
                made.kill(node)
