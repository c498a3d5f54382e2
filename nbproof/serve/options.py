"""The options of `nbproof serve`, which cli.py describes, and which of them are refused."""

import os
import re
from dataclasses import dataclass, field

from nbproof.notebook.errors import UserError

TOKEN = "NBPROOF_TOKEN"
LOCAL = ("127.0.0.1", "localhost")  # which no other machine can reach


@dataclass(frozen=True)
class Options:
    """The options of a server, as a person gives them, and its token, from the environment.

    Raise UserError where others can reach the server and the token is missing, or can be guessed.
    """

    port: int = 8000
    host: str = LOCAL[0]
    images: bool = False
    body: float = 8
    seconds: float = 10
    concurrent: int = 64
    log_size: float = 256
    threads: int = 1
    replicas: tuple[int, int] = (2, 4)
    token: str = field(default_factory=lambda: os.environ.get(TOKEN, ""))

    def __post_init__(self):
        is_needed = self.token or self.host not in LOCAL
        if is_needed and not re.fullmatch(r"[!-~]{16,}", self.token):
            raise UserError(f"To serve at {self.host}, set the environment variable {TOKEN} to at "
                            "least 16 characters of ASCII without spaces, as `openssl rand -hex "
                            "32` prints them; clients send it as Authorization: Bearer TEXT.")
