"""The log of predictions and of the labels that people gave: served/log.sqlite.

Predictions wait in memory for a moment and are written many at once, so a request never waits for
the disk, and `kill -9` can cost the last ones. A label is acknowledged when it is on the disk.
Several servers may share the file (SQLite's WAL and its locks).
"""

import collections
import contextlib
import os
import sqlite3
import sys
import threading
import time
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.notebook.served import LOG
from nbproof.serve import metrics

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
INSERT INTO answers SELECT :id, :time, :version, :model, :answer, :best, :probability, :ood_score,
  :milliseconds, NULL, NULL, :features, :input
WHERE :time > (SELECT ifnull(max(time), 0) FROM forgotten)"""
SHADOW = "UPDATE answers SET shadow_version = :version, shadow_answer = :answer WHERE id = :id"
LABEL = "INSERT INTO labels SELECT id, :time, :label FROM answers WHERE id = :id"
OLDEST = """
DELETE FROM answers WHERE id IN (
  SELECT id FROM answers WHERE id NOT IN (SELECT id FROM labels) ORDER BY time LIMIT ?)"""


class Log:
    """The log of one server. `put` never waits."""

    def __init__(self, path: Path, megabytes: float = 256):
        self.path, self.limit = path, int(megabytes * 1e6)
        self.waiting: collections.deque = collections.deque()  # of a command and its values
        self.problem, self.database = "", None
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._work, name="log", daemon=True)
        self.thread.start()

    def put(self, command: str, rows: list[dict]) -> None:
        """Write predictions (ANSWER, SHADOW), soon; they are lost where too many wait."""
        if len(self.waiting) + len(rows) > WAITING:
            metrics.log_lost.inc(len(rows))
        else:
            self.waiting.extend((command, row) for row in rows)

    def label(self, id: str, label: str) -> None:
        """Return when a label is on the disk.

        Raise KeyError for an id that the log does not have, OSError where there is no room.
        """
        self._write({"id": id, "time": time.time(), "label": label})

    def close(self) -> None:
        """Write what waits, then stop."""
        self.stopped.set()
        self.thread.join(timeout=2 * TIMEOUT)

    def _work(self) -> None:
        if sys.platform == "linux":  # where both want one processor, requests come first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        is_last = False
        while not is_last:
            is_last = self.stopped.wait(INTERVAL)
            if self.waiting:
                self._write()
        if self.database:
            self.database.close()

    def _write(self, label: dict | None = None) -> None:
        """Write all that waits, and a label, in one transaction; a label raises what fails."""
        with self.lock:
            items = [self.waiting.popleft() for _ in range(len(self.waiting))]
            try:
                if self.database is None or not self.path.exists():
                    self.database = connect(self.path)
                with self.database as database:
                    for item in items:
                        database.execute(*item)
                    is_full = not _fits(database, self.limit)
                    is_written = label and not is_full and database.execute(LABEL, label).rowcount
                self.problem = ""
            except (sqlite3.Error, OSError) as error:
                self._failed(str(error), len(items))
                if label:
                    raise OSError(str(error)) from None
                return
        if label and not is_written:
            raise OSError("all of it has labels") if is_full else KeyError(label["id"])

    def _failed(self, problem: str, lost: int) -> None:
        """Print once what failed, and count what is lost; the next write opens the file anew."""
        if self.database:
            self.database.close()
        self.database = None
        metrics.log_lost.inc(lost)
        if problem != self.problem:
            print(f"Cannot write the log {self.path.name} ({problem}): requests are served but "
                  "not logged.", file=sys.stderr, flush=True)
        self.problem = problem


def connect(path: Path) -> sqlite3.Connection:
    """Return the log at `path`, made where it is missing. Raise sqlite3.Error or OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The write lock is taken with a transaction's first command, so that two servers take turns.
    database = sqlite3.connect(path, timeout=TIMEOUT, isolation_level="IMMEDIATE",
                               check_same_thread=False)
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
    """Empty the log, also while servers write to it, and print how many rows it held.

    What servers have not written yet, and what they are computing, is not written afterwards.
    """
    path, deleted = root() / LOG, 0
    try:
        if path.exists():
            with contextlib.closing(connect(path)) as database:
                with database:
                    for table in ("answers", "labels"):
                        deleted += database.execute(f"DELETE FROM {table}").rowcount
                    database.execute("INSERT INTO forgotten VALUES (?)", (time.time(),))
                database.execute("VACUUM")
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # which held it, too
    except sqlite3.Error as error:
        raise UserError(f"{LOG} cannot be emptied ({error}): end the servers of this folder and "
                        "run nbproof forget again.") from None
    print(f"Forgotten: {deleted} predictions and labels of {LOG}.")
    return 0


def _fits(database: sqlite3.Connection, limit: int) -> bool:
    """Delete the oldest predictions without a label until the log fits; return whether it does."""
    def pragma(name: str) -> int:
        return database.execute(f"PRAGMA {name}").fetchone()[0]

    while (pragma("page_count") - pragma("freelist_count")) * pragma("page_size") > limit:
        [[rows]] = database.execute("SELECT COUNT(*) FROM answers")
        if not database.execute(OLDEST, (max(1, rows // 10),)).rowcount:
            return False
    return True
