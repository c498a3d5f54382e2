"""A real Ray cluster on loopback: a head and nodes, each with its own `ray start`, and a token."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil


class Cluster:
    """A head on 127.0.0.2 and nodes on 127.0.0.3 and up; `variables` is what a driver needs."""

    def __init__(self, folder: Path, cpus: int, python: Path):
        self.folder, self.cpus, self.python, self.processes = folder, cpus, python, []
        (folder / "token").write_text(secrets.token_hex(32))
        # As nbproof.pipeline does it: a node starts sooner.
        (folder / "rfc3987_syntax.py").write_text("raise ImportError")
        self.security = {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(folder),
            "RAY_raylet_start_wait_time_s": "180"}  # the machine may be busy
        with socket.socket() as probe:
            probe.bind(("127.0.0.2", 0))
            self.address = f"127.0.0.2:{probe.getsockname()[1]}"
        self.variables = self.security | {"RAY_ADDRESS": self.address}

    def start(self, *options: str, cpus: int | None = None) -> None:
        """Start a node and wait until it runs."""
        number = len(self.processes) + 2
        log = self.folder / f"node{number}.log"
        command = [self.python.with_name("ray"), "start", "--block", "--disable-usage-stats",
                   f"--node-ip-address=127.0.0.{number}",
                   f"--num-cpus={self.cpus if cpus is None else cpus}",
                   "--object-store-memory=300000000", *options,
                   f"--temp-dir={self.folder / f'n{number}'}"]  # as a machine has its own disk
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with log.open("w") as file:
            process = subprocess.Popen(command, env=clean | self.security, stdout=file,
                                       stderr=file, start_new_session=True, cwd=self.folder)
        self.processes.append(process)
        ends = time.monotonic() + 200
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None and time.monotonic() < ends, log.read_text()
            time.sleep(0.2)

    def kill(self, node: int) -> None:
        """End the node of that number (0 is the head) with all its processes, as a power cut."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.processes[node].pid)
            for each in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        self.processes[node].wait(30)


@contextlib.contextmanager
def cluster(nodes: int, cpus: int = 1, head_cpus: int | None = None,
            python: Path = Path(sys.executable), options: tuple[str, ...] = (),
            ) -> Iterator[Cluster]:
    """Run `nodes` nodes of `cpus` processors in the environment of `python`, the head among them,
    which has `head_cpus` and `options`."""
    with tempfile.TemporaryDirectory(prefix="cluster-", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder), cpus, python)
        try:
            made.start("--head", f"--port={made.address.rpartition(':')[2]}",
                       "--include-dashboard=false", *options, cpus=head_cpus)
            for _ in range(nodes - 1):
                made.start(f"--address={made.address}")
            yield made
        finally:
            for node in reversed(range(len(made.processes))):
                made.kill(node)
