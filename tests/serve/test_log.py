"""The log: nothing that was acknowledged is lost, it stays within its bounds, and a disk that fails stops no answer."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from serving import ZERO

from nbproof.serve.log import Entry, Full, Log, Unknown


def entry(number: int, size: int = 100) -> Entry:
    return Entry(f"id{number}", float(number), "1", "net", "7", "7", 0.9, 0.1, 1.0, features=b"x" * size)


def rows(path, question: str) -> list[tuple]:
    with sqlite3.connect(path) as database:
        return database.execute(question).fetchall()


def test_answers_and_labels(tmp_path):
    log = Log(tmp_path / "served" / "log.sqlite")
    log.put(entry(1))
    assert log.label("id1", "7").result(10) is None
    assert log.label("id1", "8").result(10) is None
    with pytest.raises(Unknown):
        log.label("id2", "8").result(10)
    log.close()
    assert rows(log.path, "SELECT answer, label FROM answers JOIN labels USING (id)") == [("7", "7"), ("7", "8")]


def test_a_label_that_was_given_up_ends_no_log(tmp_path):
    """As where a request is over its time while another process holds the file."""
    log = Log(tmp_path / "log.sqlite")
    log.put(entry(1))
    assert log.label("id1", "8").cancel(), "the log waits for more answers"
    assert log.label("id1", "7").result(10) is None, "the thread lives on"
    with sqlite3.connect(log.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = log.label("id1", "9")
        time.sleep(0.5)
        assert not begun.cancel(), "it is written, or refused"
        other.execute("COMMIT")
    assert begun.result(10) is None
    log.close()
    assert [label for label, in rows(log.path, "SELECT label FROM labels")] == ["7", "9"]


def test_it_is_bounded_and_keeps_what_has_a_label(tmp_path):
    log = Log(tmp_path / "log.sqlite", megabytes=1)
    log.put(entry(0, 1000))
    log.label("id0", "7").result(10)
    for number in range(1, 4001):
        log.put(entry(number, 1000))
        if number % 500 == 0:
            time.sleep(0.3)
    log.close()
    kept = [number for number, in rows(log.path, "SELECT CAST(substr(id, 3) AS INT) FROM answers ORDER BY 1")]
    assert kept[0] == 0 and kept[-1] == 4000 and 100 < len(kept) < 1000, kept
    assert kept[1:] == list(range(kept[1], 4001))  # the oldest left first
    assert log.path.stat().st_size < 3e6


def test_a_log_full_of_labels_takes_no_more_of_them(tmp_path):
    log = Log(tmp_path / "log.sqlite", megabytes=0.2)
    refused = 0
    for number in range(400):
        log.put(entry(number, 1000))
    time.sleep(0.5)
    for number in range(400):
        try:
            log.label(f"id{number}", "7").result(10)
        except (Full, Unknown):
            refused += 1
    log.close()
    assert 0 < refused < 400 and len(rows(log.path, "SELECT DISTINCT id FROM labels")) == 400 - refused


def ask_and_label(server, count: int, acknowledged: list, ends: threading.Event) -> None:
    for number in range(count):
        if ends.is_set():
            return
        try:
            id = server.ask("/invocations", {"inputs": ZERO})[1]["ids"][0]
            if server.ask("/label", {"id": id, "label": str(number % 10)})[0] == 200:
                acknowledged.append((id, str(number % 10)))
        except (OSError, ValueError, KeyError):
            return  # it was killed


def test_kill_9_loses_no_label_of_two_servers_on_one_log(served, nets):
    served.register(nets[7])
    servers = [served.start(), served.start()]
    acknowledged, ends = [], threading.Event()
    threads = [threading.Thread(target=ask_and_label, args=(server, 10_000, acknowledged, ends))
               for server in servers * 2]
    for thread in threads:
        thread.start()
    time.sleep(3)
    servers[0].stop(signal.SIGKILL)
    time.sleep(1)
    servers[1].stop(signal.SIGKILL)
    ends.set()
    for thread in threads:
        thread.join()
    assert len(acknowledged) > 20
    path = served.root / "served" / "log.sqlite"
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert set(acknowledged) <= set(rows(path, "SELECT id, label FROM labels"))
    server = served.start()  # and it goes on
    id = server.ask("/invocations", {"inputs": ZERO})[1]["ids"][0]
    assert server.ask("/label", {"id": id, "label": "3"})[0] == 200


def test_a_full_disk_stops_no_answer(served, nets):
    """The limit on a file's size is what a full disk is to SQLite: a write that does not happen."""
    import resource

    served.register(nets[7])
    server = served.start()
    id = server.ask("/invocations", {"inputs": ZERO})[1]["ids"][0]
    assert server.ask("/label", {"id": id, "label": "7"})[0] == 200
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    ids = [server.ask("/invocations", {"inputs": ZERO})[1]["ids"][0] for _ in range(300)]
    time.sleep(0.5)
    status, answer = server.ask("/label", {"id": ids[-1], "label": "7"})
    assert status in (404, 507), answer
    server.until(lambda: "cannot be written" in server.text())
    assert server.says() == "7" and server.text().count("cannot be written") < 5
    lost = server.ask("/metrics")[1].decode().split("\nnbproof_log_lost_total ")[1].split()[0]
    assert float(lost) > 0
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    id = server.ask("/invocations", {"inputs": ZERO})[1]["ids"][0]
    server.until(lambda: server.ask("/label", {"id": id, "label": "7"})[0] == 200)  # there is room again


def test_a_folder_that_cannot_be_written(served, nets):
    served.register(nets[7])
    (served.root / "served").write_text("a file where the folder should be")
    server = served.start()
    assert server.says() == "7"
    server.until(lambda: "cannot be written" in server.text())
    assert server.ask("/label", {"id": "x", "label": "7"})[0] == 507


def test_forget_empties_it_under_a_server(served, nets):
    served.register(nets[7])
    server = served.start("--images")
    for _ in range(20):
        id = server.ask("/invocations", {"inputs": ZERO})[1]["ids"][0]
    assert server.ask("/label", {"id": id, "label": "7"})[0] == 200
    done = subprocess.run([sys.executable, "-m", "nbproof", "forget"], cwd=served.root, capture_output=True, text=True,
                          env=os.environ | served.variables)
    assert done.stdout == "Forgotten: 21 answers and labels of served/log.sqlite.\n", done.stderr
    path = served.root / "served" / "log.sqlite"
    assert rows(path, "SELECT (SELECT COUNT(*) FROM answers) + (SELECT COUNT(*) FROM labels)") == [(0,)]
    assert id.encode() not in b"".join(file.read_bytes() for file in path.parent.iterdir())
    id = server.ask("/invocations", {"inputs": ZERO})[1]["ids"][0]
    assert server.ask("/label", {"id": id, "label": "7"})[0] == 200


def test_a_log_that_was_removed_is_made_anew(served, nets):
    served.register(nets[7])
    server = served.start()
    server.says()
    time.sleep(0.5)
    for file in (served.root / "served").iterdir():
        file.unlink()
    id = server.ask("/invocations", {"inputs": ZERO})[1]["ids"][0]
    assert server.ask("/label", {"id": id, "label": "7"})[0] == 200
    assert len(rows(served.root / "served" / "log.sqlite", "SELECT * FROM answers")) == 1


def test_the_last_answers_are_written_at_the_end(served, nets):
    served.register(nets[7])
    server = served.start()
    for _ in range(5):
        server.says()
    assert server.stop() == 0
    assert len(rows(served.root / "served" / "log.sqlite", "SELECT * FROM answers")) == 5
