"""What a person may choose of a server, and what of it is refused; cli.py describes each option."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from nbproof.notebook.errors import UserError

TOKEN = "NBPROOF_TOKEN"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
REPLICAS = "2:4"


@dataclass(frozen=True)
class Limits:
    """`body` is in bytes, `rate` in requests a second and client (0: any), `seconds` a request."""

    body: int = 8_000_000
    rate: float = 0
    seconds: float = 10
    concurrent: int = 64
    token: str = ""
    is_local: bool = True

    def hit(self) -> Callable[[str], bool] | None:
        """Return the function that counts a client's request: False where it is one too many."""
        if not self.rate:
            return None
        window = RateLimitItemPerSecond(max(1, round(2 * self.rate)), 2)
        limiter = FixedWindowRateLimiter(MemoryStorage())
        return lambda client: limiter.hit(window, client)


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
        """Return the limits; UserError where they leave a server open that others can reach."""
        is_local, token = self.host in LOOPBACK, os.environ.get(TOKEN, "")
        if not is_local and not token:
            raise UserError(f"Other machines can reach {self.host}: set the environment variable "
                            f"{TOKEN} to a long random text, which clients send as Authorization: "
                            "Bearer TEXT; or listen at 127.0.0.1.")
        if token and (len(token) < 16 or not re.fullmatch(r"[!-~]+", token)):
            raise UserError(f"{TOKEN} must have at least 16 characters of ASCII without spaces, as "
                            "`openssl rand -hex 32` prints them.")
        for name in ("body", "seconds", "concurrent", "log_size", "threads"):
            if getattr(self, name) <= 0:
                option = name.replace("_", "-")
                raise UserError(f"--{option} must be above 0, found {getattr(self, name)}.")
        rate = self.rate if self.rate >= 0 else (0 if is_local else 50)
        body = int(self.body * 1e6)
        return Limits(body, rate, self.seconds, self.concurrent, token, is_local)

    def between(self) -> tuple[int, int]:
        """Return the fewest and the most replicas on a cluster."""
        found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", self.replicas or REPLICAS)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError("--replicas must be the fewest and the most, such as "
                            f"{REPLICAS}, found {self.replicas}.")
        return int(found[1]), int(found[2])
