"""One notebook, executed exactly: checked parameters, every cell, the same bytes in each run."""

RESULTS = 1
"""The number of what in nbproof shapes results: kernel settings, execution, the API's writers.

The file of pins carries it, so a change of it runs every stage again. tests/runner fails where
bytes change and the number does not.
"""


class StageFailure(RuntimeError):
    """A cell ran, and what it did or showed fails the stage."""
