"""Errors that a person reads as one sentence, without a traceback."""

import difflib
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

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
    """Fail a stage with `message` unless `met`; an exploration and an experiment of DVC's show a
    warning and go on."""
    if met:
        return
    if os.environ.get("NBPROOF_OUTPUT") and not os.environ.get("DVC_EXP_BASELINE_REV"):
        raise AssertionError(f"{message} (in JupyterLab and under dvc exp run this only warns)")
    show(f"**Warning:** {message}. As a stage, this notebook fails here.")


def meant(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean NAME?` for the known name most like `name`; empty if none is."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {close[0]}?" if close else ""


def typed(text: str) -> str:
    """Return `text` with its commands as a person can type them where nbproof is not on the PATH:
    a target of the project's Makefile (`make run`), or the program in its environment."""
    program = os.path.relpath(Path(sys.prefix) / "bin" / "nbproof")
    if shutil.which("nbproof") or program.startswith(".."):
        return text
    makefile = Path("Makefile").read_text("utf-8") if Path("Makefile").is_file() else ""

    def replaced(match: re.Match) -> str:
        is_target = re.search(rf"(?m)^{match[1]}:", makefile) and not match[2]
        return f"make {match[1]}" if is_target else f"{program}{match[0][len('nbproof'):]}"

    return re.sub(r"\bnbproof ([a-z]+)( -| [A-Z])?", replaced, text)


def trace() -> None:
    """Print the traceback behind the current error's sentence, if --debug requests it."""
    if os.environ.get("NBPROOF_DEBUG"):
        traceback.print_exc()
