"""The log: what is acknowledged is on the disk, it is bounded, and it forgets."""

import contextlib
import os
import resource
import signal
import sqlite3
import threading
import time

import pytest
from serving import ZERO

from nbproof.notebook.errors import UserError
from nbproof.serve import log
from nbproof.serve.log import ANSWER, SHADOW, Log


def row(number: int, size: int = 0, at: float | None = None) -> dict:
    return {"id": f"id{number}", "time": at or time.time(), "version": "1",
            "model": "net", "answer": "7", "best": "7", "probability": 0.9, "ood_score": 0.1,
            "milliseconds": 1.0, "features": os.urandom(size), "input": None}


def rows(path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


@pytest.fixture
def path(served, inside):
    inside(served.root)
    return served.root / log.LOG


def test_it_is_bounded_and_keeps_what_has_a_label(path):
    one = Log(path, megabytes=0.2)
    one.put(ANSWER, [row(0, 1000)])
    one.label("id0", "7")
    for start in range(1, 1001, 200):
        one.put(ANSWER, [row(number, 1000) for number in range(start, start + 200)])
        time.sleep(0.3)
    time.sleep(2)
    one.put(SHADOW, [{"id": "id1000", "version": "2", "answer": "3"}])
    one.label("id0", "8")
    kept = [number for number, in rows(
        path, "SELECT CAST(substr(id, 3) AS INT) FROM answers ORDER BY 1")]
    assert kept[0] == 0 and kept[1:] == list(range(kept[1], 1001)) and 20 < len(kept) < 200
    with pytest.raises(UserError, match="all of it has labels"):
        for _ in range(100):
            one.label("id0", "7" * 9000)
    one.close()
    assert path.stat().st_mode & 0o077 == 0


def test_forget_forgets_also_what_is_on_its_way(path, capsys):
    """The first predictions afterwards are kept, of both servers on the file."""
    servers = [Log(path), Log(path)]  # which make the file at once
    time.sleep(0.5)
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
        one.put(SHADOW, [{"id": f"id{20 + number}", "version": "2", "answer": "3"}])
        one.close()
    written = rows(path, "SELECT id, shadow_answer, label FROM answers JOIN labels USING (id)")
    assert sorted(written) == [("id20", "3", "7"), ("id21", "3", "7")]
    assert b"id10" not in b"".join(file.read_bytes() for file in path.parent.iterdir())


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
    path = served.root / log.LOG
    assert len(acknowledged) > 20 and rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert set(acknowledged) <= {id for id, in rows(path, "SELECT id FROM labels")}


def test_a_full_disk_stops_no_prediction(served, nets):
    """The limit of a file's size is what a full disk is to SQLite: a write that fails."""
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
    assert label() == 400 and server.text().count("Cannot write") < 5
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (infinite, infinite))
    server.until(lambda: label() == 200)  # there is room again, and all that waited is written
    assert len(rows(served.root / log.LOG, "SELECT id FROM answers")) > 300
