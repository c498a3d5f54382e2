"""What a worker of a cluster does on its machine, without Ray."""

import os
import subprocess
import sys
import tempfile

from nbproof.sweep import cluster


def test_only_our_own_folders_of_dead_processes_are_removed(tmp_path, monkeypatch):
    """Other programs, other machines on the same disk and other users have folders of the like, too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    ours = cluster._ours()
    names = [f"{cluster.MACHINE}-{gone.pid}-x", f"{cluster.MACHINE}-{os.getpid()}-x", f"000000-{gone.pid}-x",
             f"trial-{gone.pid}-x", f"{cluster.MACHINE}-none-x"]
    strange = [tmp_path / name for name in (names[0], f"trial-{gone.pid}-x", f"stage-{gone.pid}-x")]
    for folder in [*(ours / name for name in names), *strange]:
        folder.mkdir()
    cluster.remove_dead()
    assert sorted(each.name for each in ours.iterdir()) == sorted(names[1:])
    assert all(folder.exists() for folder in strange)


def test_what_a_notebook_takes_of_a_node():
    assert cluster.needs({"threads": 2, "device": "auto"}) == ("CPU", 2)
    assert cluster.needs({"threads": None}) == cluster.needs({}) == ("CPU", 1)
    assert cluster.needs({"threads": 2, "device": "cuda:0"}) == ("GPU", 1)
