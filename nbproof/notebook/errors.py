"""Errors that a person reads as one sentence, without a traceback."""

import difflib
import os
import traceback
from collections.abc import Iterable

from nbproof.notebook.progress import say, show


class UserError(Exception):
    """A command cannot do what was requested; the message says what, where, and what to do."""


class Fallback(RuntimeError):
    """A failure that another parameter value would avoid: `parameter` (`data.source`) = `value`.

    The message says what went wrong. `nbproof run` sets the value in params.yaml and goes on.
    """

    def __init__(self, message: str, parameter: str, value: object):
        super().__init__(message)
        say(fallback={"parameter": parameter, "value": value, "message": message})


def require(met: bool, message: str) -> None:
    """Fail a stage with `message` unless `met`; an exploration shows a warning and goes on."""
    if not met and os.environ.get("NBPROOF_OUTPUT"):
        raise AssertionError(message)
    if not met:
        show(f"**Warning:** {message}. As a stage, this notebook fails here.")


def meant(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean NAME?` for the known name most like `name`; empty if none is."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {close[0]}?" if close else ""


def trace() -> None:
    """Print the traceback behind the current error's sentence, if --debug requests it."""
    if os.environ.get("NBPROOF_DEBUG"):
        traceback.print_exc()
