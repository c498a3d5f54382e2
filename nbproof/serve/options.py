"""The options of `nbproof serve`, which cli.py describes, and which of them are refused."""

import os
import re
from dataclasses import dataclass, field

from nbproof.notebook.errors import UserError

TOKEN = "NBPROOF_TOKEN"


@dataclass(frozen=True)
class Options:
    """The options of a server, as a person gives them, and its token, from the environment.

    Raise UserError where they leave a server open to others.
    """

    port: int = 8000
    host: str = "127.0.0.1"
    images: bool = False
    body: float = 8
    rate: float | None = None
    seconds: float = 10
    concurrent: int = 64
    log_size: float = 256
    threads: int = 1
    replicas: str = "2:4"
    token: str = field(default_factory=lambda: os.environ.get(TOKEN, ""))

    @property
    def is_local(self) -> bool:
        """Whether no other machine can reach the server."""
        return self.host in ("127.0.0.1", "localhost", "::1")

    def __post_init__(self):
        if not self.is_local and not self.token:
            raise UserError(f"Other machines can reach {self.host}: set the environment variable "
                            f"{TOKEN} to a long random text, which clients send as Authorization: "
                            "Bearer TEXT; or listen at 127.0.0.1.")
        if self.token and not re.fullmatch(r"[!-~]{16,}", self.token):
            raise UserError(f"{TOKEN} must have at least 16 characters of ASCII without spaces, as "
                            "`openssl rand -hex 32` prints them.")
        fewest, _, most = self.replicas.partition(":")
        if not (fewest.isdecimal() and most.isdecimal() and 1 <= int(fewest) <= int(most)):
            raise UserError("--replicas must be the fewest and the most, such as 2:4, found "
                            f"{self.replicas}.")
