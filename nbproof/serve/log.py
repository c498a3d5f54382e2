"""The log of predictions and of the labels that people gave: served/log.sqlite.

One thread writes. Predictions wait in memory for a moment and are written many at once, so a
request never waits for the disk, and `kill -9` can cost the last ones. A label is acknowledged
when it is on the disk. Several servers may share the file (SQLite's WAL and its locks).
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.notebook.served import LOG

INTERVAL = 0.2  # seconds between two writes of predictions
WAITING = 20_000  # predictions that may wait in memory; more are dropped, and counted
TIMEOUT = 5  # seconds for another server's write to end
TABLES = """
CREATE TABLE IF NOT EXISTS answers (
  id TEXT PRIMARY KEY, time REAL, version TEXT, model TEXT, answer TEXT, best TEXT,
  probability REAL, strangeness REAL, milliseconds REAL, shadow_version TEXT, shadow_answer TEXT,
  features BLOB, input BLOB);
CREATE INDEX IF NOT EXISTS answers_by_time ON answers (time);
CREATE TABLE IF NOT EXISTS labels (id TEXT, time REAL, label TEXT);
CREATE INDEX IF NOT EXISTS labels_by_id ON labels (id);
CREATE TABLE IF NOT EXISTS forgotten (time REAL);
"""
# `time` is the begin of the request: what began before `nbproof forget` is not written after it.
ANSWER = """
INSERT INTO answers SELECT :id, :time, :version, :model, :answer, :best, :probability, :strangeness,
  :milliseconds, NULL, NULL, :features, :input
WHERE :time > (SELECT ifnull(max(time), 0) FROM forgotten)"""
SHADOW = "UPDATE answers SET shadow_version = :version, shadow_answer = :answer WHERE id = :id"
LABEL = "INSERT INTO labels SELECT id, :time, :label FROM answers WHERE id = :id"
OLDEST = """
DELETE FROM answers WHERE id IN (
  SELECT id FROM answers WHERE id NOT IN (SELECT id FROM labels) ORDER BY time LIMIT ?)"""


class LogFull(Exception):
    """A label could not be kept: the disk or the log is full, or the file cannot be written."""


class UnknownId(Exception):
    """A label for a prediction that the log does not have."""


class Log:
    """The log of one server. `put` never waits."""

    def __init__(self, path: Path, megabytes: float = 256,
                 count_lost: Callable[[int], None] = lambda number: None):
        self.path, self.limit, self.count_lost = path, int(megabytes * 1e6), count_lost
        self.queue: queue.SimpleQueue = queue.SimpleQueue()  # of a command, its values, a future
        self.problem, self.database = "", None
        self.thread = threading.Thread(target=self._work, name="log", daemon=True)
        self.thread.start()

    def put(self, command: str, rows: list[dict]) -> None:
        """Write predictions (ANSWER, SHADOW), soon; they are lost where too many wait."""
        if self.queue.qsize() + len(rows) > WAITING:
            self.count_lost(len(rows))
            return
        for row in rows:
            self.queue.put((command, row, None))

    def label(self, id: str, label: str) -> Future:
        """Write a label; the future is done when it is safe, or raises UnknownId or LogFull."""
        done: Future = Future()
        self.queue.put((LABEL, {"id": id, "time": time.time(), "label": label}, done))
        return done

    async def write_label(self, id: str, label: str) -> None:
        """Wait until a label is on the disk; see `label`."""
        await asyncio.wrap_future(self.label(id, label))

    def close(self) -> None:
        """Write what waits, then stop."""
        self.queue.put(None)
        self.thread.join(timeout=2 * TIMEOUT)

    def _work(self) -> None:
        if sys.platform == "linux":  # where both want one processor, requests come first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        items: list = []
        while None not in items:
            items = [self.queue.get()]
            if items[0] and items[0][0] != LABEL:  # a person waits for a label
                time.sleep(INTERVAL)
            items += [self.queue.get() for _ in range(self.queue.qsize())]
            self._write([item for item in items if item and (
                item[2] is None or item[2].set_running_or_notify_cancel())])
        if self.database:
            self.database.close()

    def _write(self, items: list) -> None:
        """Write all in one transaction; whatever the disk does, this thread lives on."""
        labels = [done for _, _, done in items if done]
        try:
            if self.database is None or not self.path.exists():
                self.database = connect(self.path)
            with self.database as database:
                rows = [database.execute(*item[:2]).rowcount for item in items if not item[2]]
                is_full = not _fits(database, self.limit)
                rows = [0 if is_full else database.execute(*item[:2]).rowcount
                        for item in items if item[2]]
            self.problem = ""
        except (sqlite3.Error, OSError) as error:
            self._failed(error, len(items) - len(labels), labels)
            return
        for done, is_written in zip(labels, rows):
            if is_written:
                done.set_result(None)
            else:
                done.set_exception(LogFull("all of it has labels") if is_full else UnknownId())

    def _failed(self, error: Exception, lost: int, labels: list[Future]) -> None:
        """Print once what failed, and count what is lost; the next write opens the file anew."""
        if self.database:
            self.database.close()
        self.database = None
        self.count_lost(lost)
        for done in labels:
            done.set_exception(LogFull(str(error)))
        if str(error) != self.problem:
            print(f"Cannot write the log {self.path.name} ({error}): requests are served but "
                  "not logged.", file=sys.stderr, flush=True)
        self.problem = str(error)


def connect(path: Path) -> sqlite3.Connection:
    """Return the log at `path`, made where it is missing. Raise sqlite3.Error or OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The write lock is taken with a transaction's first command, so that two servers take turns.
    database = sqlite3.connect(path, timeout=TIMEOUT, isolation_level="IMMEDIATE")
    for _ in range(100):
        try:
            database.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # Of two servers that open a new file at once, SQLite refuses one without waiting.
            if "locked" not in str(error):
                raise
            time.sleep(TIMEOUT / 100)
    database.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut
    database.execute("PRAGMA secure_delete = ON")  # what is forgotten leaves no bytes behind
    database.executescript(TABLES)
    path.chmod(0o600)  # people's drawings
    return database


def forget() -> int:
    """Empty the log, also while servers write to it; return how many rows it held.

    What servers have not written yet, and what they are computing, is not written afterwards.
    """
    path = root() / LOG
    if not path.exists():
        return 0
    try:
        with contextlib.closing(connect(path)) as database:
            with database:
                deleted = [database.execute(f"DELETE FROM {table}").rowcount
                           for table in ("answers", "labels")]
                database.execute("INSERT INTO forgotten VALUES (?)", (time.time(),))
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise UserError(f"{LOG} cannot be emptied ({error}): end the servers of this folder and "
                        "run nbproof forget again.") from None
    return sum(deleted)


def _fits(database: sqlite3.Connection, limit: int) -> bool:
    """Delete the oldest predictions without a label until the log fits; return whether it does."""
    def pragma(name: str) -> int:
        return database.execute(f"PRAGMA {name}").fetchone()[0]

    while (pragma("page_count") - pragma("freelist_count")) * pragma("page_size") > limit:
        [[rows]] = database.execute("SELECT COUNT(*) FROM answers")
        if not database.execute(OLDEST, (max(1, rows // 10),)).rowcount:
            return False
    return True
