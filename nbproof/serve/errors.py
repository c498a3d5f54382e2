"""What goes wrong with a request: a status, a code as MLflow's server writes it, and one sentence."""

import json


class Trouble(Exception):
    """A request that is not answered; `code` is one of MLflow's error codes."""

    def __init__(self, status: int, code: str, message: str, **headers: str):
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers

    def body(self) -> bytes:
        """The error as JSON."""
        return json.dumps({"error_code": self.code, "message": self.message}, ensure_ascii=False).encode()


def wrong(message: str) -> Trouble:
    """A request that asks for something that cannot be answered: the client must change it."""
    return Trouble(400, "BAD_REQUEST", message)
