"""What is told to a person in one sentence, without a traceback."""

import difflib
import os
import traceback
from collections.abc import Iterable

from nbproof.notebook.progress import say, show


class UserError(Exception):
    """A command does not do what it was asked to; its message says what, where, and what to do."""


class Remedy(RuntimeError):
    """A failure with a way out: `parameter` (`section.name` in params.yaml) set to `value` lets the run go on.

    The message says what went wrong and names both. `nbproof run` takes the way out unless it is told not to.
    """

    def __init__(self, message: str, parameter: str, value: object):
        super().__init__(message)
        say(remedy={"parameter": parameter, "value": value, "message": message})


def require(met: bool, message: str) -> None:
    """A floor, for example: a stage that does not meet it fails with `message`; an exploration says so and goes on."""
    if not met and os.environ.get("NBPROOF_OUTPUT"):
        raise AssertionError(message)
    if not met:
        show(f"**Warning:** {message}. As a stage, this notebook fails here.")


def meant(name: str, known: Iterable[str]) -> str:
    """` Did you mean NAME?` for the one of the `known` names that is most like `name`; empty if none is."""
    return "".join(f" Did you mean {each}?" for each in difflib.get_close_matches(name, list(known), 1))


def trace() -> None:
    """Show the traceback of the error that is handled, whose sentence hides it, where --debug asks for it."""
    if os.environ.get("NBPROOF_DEBUG"):
        traceback.print_exc()
