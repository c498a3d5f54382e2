"""What was asked and answered, and the labels that people gave: served/log.sqlite.

One thread writes. Answers wait in memory for a moment and are written many at once: a request never waits for the disk,
and `kill -9` can cost the last answers. A label is acknowledged only when it is on the disk. Several servers may share
a file (SQLite's WAL and its locks). The file is bounded: the oldest answers without a label leave first.
"""

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
from typing import NamedTuple

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.notebook.served import LOG

EVERY = 0.2  # seconds between two writes of answers
WAITING = 20_000  # answers that may wait in memory; more are dropped, and counted
PATIENCE = 5.0  # seconds for another server's write to end
TABLES = """
CREATE TABLE IF NOT EXISTS answers (
  id TEXT PRIMARY KEY, time REAL, version TEXT, model TEXT, answer TEXT, best TEXT, probability REAL, strangeness REAL,
  milliseconds REAL, shadow_version TEXT, shadow_answer TEXT, features BLOB, input BLOB);
CREATE INDEX IF NOT EXISTS answers_by_time ON answers (time);
CREATE TABLE IF NOT EXISTS labels (id TEXT, time REAL, label TEXT);
CREATE INDEX IF NOT EXISTS labels_by_id ON labels (id);
"""
INSERT = f"INSERT OR REPLACE INTO answers VALUES ({', '.join('?' * 13)})"
OLDEST = "SELECT id FROM answers WHERE id NOT IN (SELECT id FROM labels) ORDER BY time LIMIT ?"


class Full(Exception):
    """A label could not be kept: the disk or the log is full, or the file cannot be written."""


class Unknown(Exception):
    """A label for an answer that the log does not have."""


class Entry(NamedTuple):
    """One answer, in the order of the table's columns. `answer` is None for "I do not know"."""

    id: str
    time: float
    version: str
    model: str
    answer: str | None
    best: str
    probability: float
    strangeness: float | None
    milliseconds: float
    shadow_version: str | None = None
    shadow_answer: str | None = None
    features: bytes | None = None
    input: bytes | None = None


def place() -> Path:
    """Where this project's log is."""
    return root() / LOG


def connected(path: Path) -> sqlite3.Connection:
    """The log at `path`, made if it is not there; sqlite3.Error or OSError where that cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")  # what is committed stays, even if the machine stops
        database.execute("PRAGMA secure_delete = ON")  # what is forgotten leaves no trace in free pages
        database.executescript(TABLES)
        path.chmod(0o600)  # drawings of people
    except (sqlite3.Error, OSError):
        database.close()
        raise
    return database


class Log:
    """The log of one server. `put` never waits; `label` returns when the label is on the disk."""

    def __init__(self, path: Path, megabytes: float = 256, dropped: Callable[[int], None] = lambda number: None):
        self.path, self.limit, self.dropped = path, int(megabytes * 1e6), dropped
        self.waiting: queue.Queue = queue.Queue(WAITING)
        self.said, self.database = "", None
        self.thread = threading.Thread(target=self._work, name="log", daemon=True)
        self.thread.start()

    def put(self, entry: Entry) -> None:
        """Keep an answer, soon; it is dropped, and counted, where too many wait."""
        try:
            self.waiting.put_nowait(entry)
        except queue.Full:
            self.dropped(1)

    def label(self, id: str, label: str) -> Future:
        """Keep what a person says of the answer `id`; done when it is safe, or with Unknown or Full."""
        done: Future = Future()
        try:
            self.waiting.put_nowait((id, label, done))
        except queue.Full:
            done.set_exception(Full("too many answers wait to be written"))
        return done

    def close(self) -> None:
        """Write what waits, then stop."""
        with contextlib.suppress(queue.Full):  # the disk has not taken any for long
            self.waiting.put(None, timeout=PATIENCE)
        self.thread.join(timeout=2 * PATIENCE)

    def _work(self) -> None:
        if sys.platform == "linux":  # where both want one core, answers come first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        ends = False
        while not ends:
            taken = [self.waiting.get()]
            if isinstance(taken[0], Entry):  # an answer can wait for others, a label should not
                time.sleep(EVERY)
            while len(taken) < WAITING:
                try:
                    taken.append(self.waiting.get_nowait())
                except queue.Empty:
                    break
            ends = None in taken
            labels = [each for each in taken if each and not isinstance(each, Entry)]
            self._write([each for each in taken if isinstance(each, Entry)],
                        [each for each in labels if each[2].set_running_or_notify_cancel()])  # not what was given up
        if self.database:
            self.database.close()

    def _write(self, answers: list[Entry], labels: list[tuple]) -> None:
        """Write answers, then labels; whatever the disk does, this thread lives on and says it."""
        try:
            if answers:
                database = self._open()
                with _transaction(database):
                    database.executemany(INSERT, answers)
                self._bound(database)
                self.said = ""
        except (sqlite3.Error, OSError) as error:
            self._failed(error, len(answers))
        for id, label, done in labels:
            try:
                self._keep(self._open(), id, label)
                done.set_result(None)
            except (Unknown, Full) as refused:
                done.set_exception(refused)
            except (sqlite3.Error, OSError) as error:
                self._failed(error, 0)
                done.set_exception(Full(str(error)))

    def _open(self) -> sqlite3.Connection:
        """The database; opened again where its file was removed or could not be written."""
        if self.database and not self.path.exists():
            self.database.close()
            self.database = None
        if self.database is None:
            self.database = connected(self.path)
        return self.database

    def _keep(self, database: sqlite3.Connection, id: str, label: str) -> None:
        if database.execute("SELECT 1 FROM answers WHERE id = ?", (id,)).fetchone() is None:
            raise Unknown(id)
        if _size(database) > self.limit:
            raise Full("the log holds as much as it may, and all of it has labels")
        with _transaction(database):
            database.execute("INSERT INTO labels VALUES (?, ?, ?)", (id, time.time(), label))

    def _bound(self, database: sqlite3.Connection) -> None:
        """Let the oldest answers without a label go where the file holds more than it may."""
        while _size(database) > self.limit:
            kept = database.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
            with _transaction(database):
                gone = database.execute(f"DELETE FROM answers WHERE id IN ({OLDEST})", (max(1, kept // 10),)).rowcount
            if not gone:
                return

    def _failed(self, error: Exception, lost: int) -> None:
        """Say once what the disk does not do; the next write tries from the beginning."""
        with contextlib.suppress(sqlite3.Error):
            if self.database:
                self.database.close()
        self.database = None
        if lost:
            self.dropped(lost)
        if str(error) != self.said:
            self.said = str(error)
            print(f"The log {self.path.name} cannot be written ({error}): answers are given, and not kept.",
                  file=sys.stderr, flush=True)


def forget() -> int:
    """Empty the log, also under a server that is at work; how many answers and labels it held."""
    path = place()
    if not path.exists():
        return 0
    try:
        with contextlib.closing(connected(path)) as database:
            tables = ("answers", "labels")
            held = sum(database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables)
            with _transaction(database):
                for table in tables:
                    database.execute(f"DELETE FROM {table}")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise UserError(f"served/{path.name} cannot be emptied ({error}): end the servers of this folder and try again, "
                      "or remove the folder served.") from None
    return held


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection):
    """All or nothing; the write lock is taken at once, so that two servers wait for each other and do not fail."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def _size(database: sqlite3.Connection) -> int:
    """The bytes that the database uses; free pages are used again before the file grows."""
    pages, free, size = (database.execute(f"PRAGMA {each}").fetchone()[0]
                         for each in ("page_count", "freelist_count", "page_size"))
    return (pages - free) * size
