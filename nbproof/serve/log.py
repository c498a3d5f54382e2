"""The log of predictions and of the labels that people gave: served/log.sqlite.

Predictions wait in memory for a moment and are written many at once, so a request never waits for
the disk, and `kill -9` can cost the last ones. A label is acknowledged when it is on the disk.
Several servers may share the file (SQLite's WAL and its locks).
"""

import collections
import contextlib
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
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;  -- a commit survives a power cut
PRAGMA secure_delete = ON;  -- what is forgotten leaves no bytes behind
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
SIZE = """
SELECT (page_count - freelist_count) * page_size
FROM pragma_page_count, pragma_freelist_count, pragma_page_size"""
OLDEST = """
DELETE FROM answers WHERE id IN (
  SELECT id FROM answers WHERE id NOT IN (SELECT id FROM labels) ORDER BY time
  LIMIT (SELECT 1 + count(*) / 10 FROM answers))"""


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
        """Return when a label is on the disk; UserError where it is not."""
        try:
            found = self._write((LABEL, {"id": id, "time": time.time(), "label": label}))
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"The label was not written: {error}.") from None
        if not found:
            raise UserError("The log has no prediction with this id.")

    def close(self) -> None:
        """Write what waits, then stop."""
        self.stopped.set()
        self.thread.join(timeout=2 * TIMEOUT)

    def _work(self) -> None:
        is_last = False
        while not is_last:
            is_last = self.stopped.wait(TIMEOUT if self.problem else INTERVAL)
            try:
                self._write()
                self.problem = ""
            except (sqlite3.Error, OSError) as error:  # a full disk, say: what waits is kept
                if str(error) != self.problem:
                    self.problem = str(error)
                    print(f"Cannot write the log {self.path.name} ({error}): requests are served "
                          "but not logged.", file=sys.stderr, flush=True)
        if self.database:
            self.database.close()

    def _write(self, *label: tuple[str, dict]) -> int:
        """Write what waits, and a label, in one transaction; return how many rows the last took."""
        with self.lock:
            items, written = [*self.waiting, *label], 0
            if not items:
                return 0
            if self.database is None or not self.path.exists():
                self.database = connect(self.path)
            with self.database as database:
                for item in items:
                    written = database.execute(*item).rowcount
                while is_full := database.execute(SIZE).fetchone()[0] > self.limit:
                    if not database.execute(OLDEST).rowcount:
                        break
                if label and is_full:
                    raise OSError("the log is full, and all of it has labels")
            for _ in range(len(items) - len(label)):
                self.waiting.popleft()
        return written


def connect(path: Path) -> sqlite3.Connection:
    """Return the log at `path`, made where it is missing. Raise sqlite3.Error or OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The write lock is taken with a transaction's first command, so that two servers take turns.
    database = sqlite3.connect(path, timeout=TIMEOUT, isolation_level="IMMEDIATE",
                               check_same_thread=False)
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
