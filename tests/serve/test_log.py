"""The log: what is acknowledged is on the disk, it is bounded, and it forgets."""

import contextlib
import os
import signal
import sqlite3
import threading
import time

import pytest
from serving import ZERO

from nbproof.serve import log
from nbproof.serve.log import ANSWER, SHADOW, Log


def row(number: int, size: int = 0, at: float | None = None) -> dict:
    return {"id": f"id{number}", "time": at or time.time(), "version": "1",
            "model": "net", "answer": "7", "best": "7", "probability": 0.9, "ood_score": 0.1,
            "milliseconds": 1.0, "features": os.urandom(size), "input": None}


def rows(path, query: str) -> list[tuple]:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


@pytest.fixture
def place(served, inside):
    inside(served.root)
    return served.root / log.LOG


def test_labels_are_acknowledged_or_refused_and_the_rest_is_written_at_the_end(place):
    one = Log(place)
    one.put(ANSWER, [row(1)])
    one.label("id1", "7")
    with pytest.raises(KeyError):
        one.label("none", "7")
    one.put(SHADOW, [{"id": "id1", "version": "2", "answer": "3"}])
    one.put(ANSWER, [row(2)])
    one.close()
    assert rows(place, "SELECT id, label FROM labels") == [("id1", "7")]
    assert rows(place, "SELECT id, shadow_answer FROM answers") == [("id1", "3"), ("id2", None)]
    assert place.stat().st_mode & 0o077 == 0


def test_it_is_bounded_and_keeps_what_has_a_label(place):
    one = Log(place, megabytes=0.2)
    one.put(ANSWER, [row(0, 1000)])
    one.label("id0", "7")
    for start in range(1, 1001, 200):
        one.put(ANSWER, [row(number, 1000) for number in range(start, start + 200)])
        time.sleep(0.3)
    query = "SELECT CAST(substr(id, 3) AS INT) FROM answers ORDER BY 1"
    kept = [number for number, in rows(place, query)]
    assert kept[0] == 0 and kept[1:] == list(range(kept[1], 1001)) and 20 < len(kept) < 200
    with pytest.raises(OSError):
        for number in kept[1:]:
            with contextlib.suppress(KeyError):  # labels take the room of older predictions
                one.label(f"id{number}", "7" * 9000)
    one.close()
    assert rows(place, "SELECT DISTINCT label FROM labels ORDER BY 1") == [("7",), ("7" * 9000,)]


def test_forget_forgets_also_what_is_on_its_way(place, capsys):
    """The first predictions afterwards are kept, of both servers on the file."""
    servers = [Log(place), Log(place)]
    for number, one in enumerate(servers):
        one.put(ANSWER, [row(number)])
        one.label(f"id{number}", "7")
    begun = time.time()
    servers[0].put(ANSWER, [row(10)])  # waits in memory
    log.forget()
    assert "Forgotten: 4 " in capsys.readouterr().out
    servers[0].put(SHADOW, [{"id": "id0", "version": "2", "answer": "3"}])
    servers[1].put(ANSWER, [row(11, at=begun)])  # its request began before
    for number, one in enumerate(servers):
        one.put(ANSWER, [row(20 + number)])
        one.label(f"id{20 + number}", "7")
        one.close()
    assert rows(place, "SELECT id FROM answers ORDER BY id") == [("id20",), ("id21",)]
    assert b"id10" not in b"".join(file.read_bytes() for file in place.parent.iterdir())


def test_servers_that_open_a_new_file_at_once_lose_nothing(place):
    servers = [Log(place, 1) for _ in range(12)]
    for number, one in enumerate(servers):
        one.put(ANSWER, [row(number)])
    for one in servers:
        one.close()
    assert len(rows(place, "SELECT id FROM answers")) == 12


def test_kill_9_loses_no_label_of_two_servers_on_one_log(served, nets):
    served.put(nets[7])
    servers, acknowledged, stop = [served.start(), served.start()], [], threading.Event()

    def label(server) -> None:
        while not stop.is_set():
            try:
                id = server.ask("/invocations", {"inputs": ZERO})[1]["ids"][0]
                if server.ask("/label", {"id": id, "label": "3"})[0] == 200:
                    acknowledged.append(id)
            except (OSError, ValueError, KeyError):
                return  # it was killed

    threads = [threading.Thread(target=label, args=(server,)) for server in servers * 2]
    for thread in threads:
        thread.start()
    for server in servers:
        time.sleep(2)
        server.stop(signal.SIGKILL)
    stop.set()
    for thread in threads:
        thread.join()
    path = served.root / "served" / "log.sqlite"
    assert len(acknowledged) > 20 and rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert set(acknowledged) <= {id for id, in rows(path, "SELECT id FROM labels")}


def test_a_full_disk_stops_no_prediction(served, nets):
    """The limit of a file's size is what a full disk is to SQLite: a write that fails."""
    import resource

    server = served.put(nets[7]).start()

    def label() -> int:
        id = server.ask("/invocations", {"inputs": ZERO})[1]["ids"][0]
        return server.ask("/label", {"id": id, "label": "7"})[0]

    assert label() == 200
    infinite = resource.RLIM_INFINITY
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (20_000, infinite))
    for _ in range(300):
        server.predicts()
    server.until(lambda: "Cannot write the log" in server.text())
    assert label() in (404, 507) and server.text().count("Cannot write") < 5
    text = server.ask("/metrics")[1]
    assert float(text.split("\nnbproof_log_lost_total ")[1].split()[0]) > 0
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (infinite, infinite))
    server.until(lambda: label() == 200)  # there is room again
