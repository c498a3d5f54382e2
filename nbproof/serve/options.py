"""The options of `nbproof serve`, which cli.py describes, and which of them are refused."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from nbproof.notebook.errors import UserError

TOKEN = "NBPROOF_TOKEN"
REPLICAS = "2:4"


@dataclass(frozen=True)
class Options:
    """The options of a server, as a person gives them, and its token, from the environment."""

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
    token: str = ""

    @property
    def is_local(self) -> bool:
        """Whether no other machine can reach the server."""
        return self.host in ("127.0.0.1", "localhost", "::1")

    def checked(self) -> "Options":
        """Return the options with the token; UserError where they leave a server open to others."""
        token = os.environ.get(TOKEN, "")
        if not self.is_local and not token:
            raise UserError(f"Other machines can reach {self.host}: set the environment variable "
                            f"{TOKEN} to a long random text, which clients send as Authorization: "
                            "Bearer TEXT; or listen at 127.0.0.1.")
        if token and not re.fullmatch(r"[!-~]{16,}", token):
            raise UserError(f"{TOKEN} must have at least 16 characters of ASCII without spaces, as "
                            "`openssl rand -hex 32` prints them.")
        for name in ("body", "seconds", "concurrent", "log_size", "threads"):
            if getattr(self, name) <= 0:
                option = name.replace("_", "-")
                raise UserError(f"--{option} must be above 0, found {getattr(self, name)}.")
        return Options(**vars(self) | {"token": token})

    def rate_limit(self) -> Callable[[str], bool] | None:
        """Return the function that counts a client's request: False where it is one too many."""
        rate = self.rate if self.rate >= 0 else (0 if self.is_local else 50)
        if not rate:
            return None
        window = RateLimitItemPerSecond(max(1, round(2 * rate)), 2)
        limiter = FixedWindowRateLimiter(MemoryStorage())
        return lambda client: limiter.hit(window, client)

    def between(self) -> tuple[int, int]:
        """Return the fewest and the most replicas on a cluster."""
        found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", self.replicas or REPLICAS)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError("--replicas must be the fewest and the most, such as "
                            f"{REPLICAS}, found {self.replicas}.")
        return int(found[1]), int(found[2])
