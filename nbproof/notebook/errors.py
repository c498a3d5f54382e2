"""What is told to a person in one sentence, without a traceback."""

from nbproof.notebook.progress import say


class Refused(Exception):
    """A command does not do what it was asked to; its message says what, where, and what to do."""


class Remedy(RuntimeError):
    """A failure with a way out: `parameter` (`section.name` in params.yaml) set to `value` lets the run go on.

    The message says what went wrong and names both. `nbproof run` takes the way out unless it is told not to.
    """

    def __init__(self, message: str, parameter: str, value: object):
        super().__init__(message)
        say(remedy={"parameter": parameter, "value": value, "message": message})
