"""A notebook counts as executed only if every cell ran to its end, and its copy never varies."""

import json
import sys
from pathlib import Path

import pytest
from projects import cells

from nbproof.runner.execute import execute_notebook

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and sockets are POSIX's")
LATER = "print('later')"


def execute(folder: Path, timeout: float = 30, events: list | None = None):
    """Execute the notebook `x` of a project in this process."""
    heard = events if events is not None else []
    path = folder / "notebooks" / "x.ipynb"
    return execute_notebook(path, {"n": 1}, timeout, folder, heard.append)


@pytest.mark.parametrize("own, error", [
    (["1 / 0", LATER], "ZeroDivisionError: division by zero"),
    (["import os\nos.kill(os.getpid(), 9)", LATER], "DeadKernelError: the kernel died"),
    (["import time\ntime.sleep(60)", LATER], "CellTimeoutError: "),
    (["import sys\nsys.exit(0)", LATER], "SystemExit: 0"),
    (["exit()", LATER], "SystemExit: "),
    (["raise ValueError('a\\nb' + 2000 * 'c')"], "ValueError: a b"),
    (["input('name?')", LATER], "StdinNotImplementedError: "),
    (["try:\n    1 / 0\nexcept Exception:\n    get_ipython().showtraceback()", LATER],
     "StageFailure: ZeroDivisionError: division by zero (shown, and not raised)"),
    (["get_ipython().run_cell('1 / 0');", LATER], "StageFailure: ZeroDivisionError: "),
    (["%%capture\n1 / 0", LATER], "ZeroDivisionError: division by zero"),
    (["import os\nos.environ['OMP_NUM_THREADS'] = '3'"], "OMP_NUM_THREADS is 3 instead of 1"),
])
def test_a_cell_that_does_not_end_fails(single, inside, own, error):
    cells(inside(single), *own)
    path = single / "notebooks" / "x.ipynb"
    content = json.loads(path.read_text())
    for cell in content["cells"][2:]:  # nbclient alone would go on after it, or leave it out
        cell["metadata"]["tags"] = ["raises-exception", "skip-execution"]
    path.write_text(json.dumps(content))
    executed, failure = execute(single, timeout=2)
    assert failure.cell == 3 and error in str(failure) and len(str(failure)) < 1200
    assert executed.metadata.failure == {
        "cell": 3, "error": failure.error, "reason": failure.reason}
    assert executed.cells[3].source == own[0]
    assert "error" in [output.output_type for output in executed.cells[3].outputs]
    assert not any(cell.outputs for cell in executed.cells[4:])


def test_events_come_in_order_and_no_output_has_them(single, inside):
    cells(inside(single),
          "from nbproof.notebook import progress\nprogress.say(message='going on')\n"
          "with progress.follow(steps=1) as follower:\n    follower.step({'loss': 0.5})")
    events: list[dict] = []
    executed, failure = execute(single, events=events)
    assert failure is None and executed.cells[3].outputs == []
    at = events.index({"cell": 3, "cells": 3})
    assert events[at + 1] == {"message": "going on"}
    assert events[at + 2]["metrics"] == {"loss": 0.5} and events[at + 2]["step"] == 1
    assert events[-1] == {"ran": 3}


@posix
def test_the_line_that_failed_is_the_cells_own(single, inside):
    """The traceback of an earlier error begins in another cell, whose lines are more."""
    (single / "notebooks" / "helper.py").write_text("def fails():\n    1 / 0\n")
    cells(single, "\n\nimport helper\ntry:\n    helper.fails()\n"
                  "except ZeroDivisionError as error:\n    first = error",
          "x = 1\nraise ValueError('late') from first")
    _, failure = execute(inside(single))
    assert str(failure) == "cell 4 (raise ValueError('late') from first): ValueError: late"
    cells(single, "import helper", "x = 1\nhelper.fails()")
    _, failure = execute(single)
    assert str(failure) == ("cell 4 (helper.fails()): ZeroDivisionError: division by zero "
                            "(in notebooks/helper.py, line 2)")


def test_a_command_of_a_cell_that_fails_is_told(single, inside):
    cells(inside(single), "!false", "!true", "_exit_code == 0")
    events: list[dict] = []
    assert execute(single, events=events)[1] is None
    assert [event["message"] for event in events if "message" in event] == [
        "warning: `!false`: a command ended with exit code 1"]


FALLBACK = ("from nbproof.notebook import Fallback\n"
            "raise Fallback(f'{n} does not work.', 'models.x.n', 7)")


def test_a_fallback_comes_with_the_failure_unless_it_was_caught(single, inside):
    cells(inside(single), FALLBACK)
    _, failure = execute(single)
    assert (failure.fallback["parameter"], failure.fallback["value"]) == ("models.x.n", 7)
    assert failure.reason == "1 does not work."
    caught = "\n".join(f"    {line}" for line in FALLBACK.splitlines())
    cells(single, f"try:\n{caught}\nexcept RuntimeError:\n    1 / 0")
    assert execute(single)[1].fallback == {}
