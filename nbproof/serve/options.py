"""What a person may choose of a server, and what of it is refused. nbproof/cli.py says what each is."""

import os
import re
from dataclasses import dataclass

from nbproof.notebook.errors import UserError
from nbproof.serve import log
from nbproof.serve.limits import Limits
from nbproof.serve.metrics import Metrics

TOKEN = "NBPROOF_TOKEN"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
REPLICAS = "2:4"


@dataclass(frozen=True)
class Options:
    """The options of a server."""

    host: str = "127.0.0.1"
    port: int = 8000
    images: bool = False
    body: float = 8
    rate: float = -1
    seconds: float = 10
    concurrent: int = 64
    log_size: float = 256
    threads: int = 1
    replicas: str = ""

    def limits(self) -> Limits:
        """The limits; UserError where they leave a server open that others can reach."""
        local, token = self.host in LOOPBACK, os.environ.get(TOKEN, "")
        if not local and not token:
            raise UserError(f"{self.host} can be reached from other machines: set the environment variable {TOKEN} to a "
                          "long random text, which clients send as Authorization: Bearer TEXT; or listen at 127.0.0.1.")
        if token and (len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token):
            raise UserError(f"{TOKEN} must have at least 16 characters of ASCII without spaces, such as `openssl rand "
                          "-hex 32` gives.")
        for name in ("body", "seconds", "concurrent", "log_size", "threads"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name.upper()} must be more than 0, found {getattr(self, name)}.")
        rate = self.rate if self.rate >= 0 else (0 if local else 50)
        return Limits(int(self.body * 1e6), rate, self.seconds, self.concurrent, token, local)

    def kept(self, metrics: Metrics) -> log.Log:
        """The log, as large as it may be; `metrics` count what it loses."""
        return log.Log(log.place(), self.log_size, metrics.log_lost.inc)

    def between(self) -> tuple[int, int]:
        """The least and the most replicas on a cluster."""
        found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", self.replicas or REPLICAS)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--replicas must be the least and the most, such as {REPLICAS}, found {self.replicas}.")
        return int(found[1]), int(found[2])
