"""What a session has started ends with it. (tests/pipeline/test_run.py kills whole runs.)"""

import os
import subprocess
import sys

import pytest

from nbproof.runner import reaper

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


def sleeper(mark: str) -> subprocess.Popen:
    variables = os.environ | {reaper.MARK: mark}
    return subprocess.Popen(["sleep", "100"], env=variables, start_new_session=True)


def test_a_stage_ends_alone_and_all_with_the_session():
    with reaper.session() as session:
        one, other = sleeper(session.mark("one")), sleeper(session.mark("other"))
        stranger = sleeper("somebody-elses/one")
        assert session.end("one") == ["sleep 100"] and one.wait(5) == -9
        assert other.poll() is None and session.folder.is_dir()
    assert other.wait(5) == -9 and not session.folder.exists()
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
