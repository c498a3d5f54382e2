"""A small project that ran once, for sweeps and for ENGINE=ray."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "remote"), str(Path(__file__).parents[2])]
pytest.importorskip("ray", reason="ray is not installed: sweeps were not tried")
import test_cycle  # noqa: E402

SWEEP = """
sweep:
  linear:
    trials: 6
    grace: 3
    space:
      lr: {low: 0.0005, high: 0.05, log: true}
      batch: [32, 64, 128]
"""


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> test_cycle.Clone:
    """The copy after `python -m pipeline run`, committed. A test leaves it as it was."""
    clone = test_cycle.small_project(tmp_path_factory.mktemp("sweep") / "project", {"PYTHONUNBUFFERED": "1"})
    path = clone.root / "params.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index("\nsweep:")] + SWEEP, encoding="utf-8")
    clone.pipeline("run")
    clone.commit("after a run")
    return clone
