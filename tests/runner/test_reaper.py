"""What a session has started ends with it. (tests/pipeline/test_run.py kills whole runs.)"""

import os
import subprocess
import sys
import time

import psutil
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


SESSION = ("import sys, time\nfrom nbproof.runner import reaper\n"
           "with reaper.session(parent=int(sys.argv[1])) as session:\n"
           "    print(session.mark(), flush=True)\n    time.sleep(100)")


@pytest.mark.parametrize("killed", ["owner", "parent"])
def test_the_watcher_ends_what_is_left_after_a_kill(killed):
    parent = subprocess.Popen(["sleep", "100"])
    owner = subprocess.Popen([sys.executable, "-c", SESSION, str(parent.pid)],
                             stdout=subprocess.PIPE, text=True)
    mark = owner.stdout.readline().strip()
    left = sleeper(mark)
    watchers = psutil.Process(owner.pid).children()
    (owner if killed == "owner" else parent).kill()
    assert left.wait(10) == -9 and owner.wait(10) == -9
    until = time.monotonic() + 10
    while any(watcher.is_running() for watcher in watchers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [watcher for watcher in watchers if watcher.is_running()]
    parent.kill()
    parent.wait()
    owner.stdout.close()
