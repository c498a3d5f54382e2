"""What the server answered and what people said of it: the log served/log.sqlite, read and never written.

The variable SERVED names another folder of the log, where the server runs beside another copy of the project.
"""

import os
import sqlite3
import time
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root

LOG = "served/log.sqlite"
TEXTS = ("id", "version", "model", "answer", "best", "shadow_version", "shadow_answer", "label")
NUMBERS = ("time", "probability", "strangeness", "milliseconds")
# The newest label of an answer counts, and of two at the same moment the one that was written last.
QUERY = """
SELECT answers.*,
  (SELECT label FROM labels WHERE labels.id = answers.id ORDER BY time DESC, rowid DESC LIMIT 1) AS label
FROM answers WHERE time >= ? AND (? IS NULL OR version = ?) ORDER BY time DESC, answers.rowid DESC LIMIT ?
"""


def served(
    newest: int | None = None, seconds: float | None = None, version: str | None = None, features: bool = True
) -> dict:
    """The answers of the log by columns, the oldest first: of all, the `newest` ones, those of the last `seconds`,
    those of one `version` of the model.

    `time`, `probability`, `strangeness` and `milliseconds` are arrays, NaN where the log holds nothing; `features` is
    an array [N, F] (F is 0 where a model has none); `id`, `version`, `model`, `answer`, `best`, `shadow_version`,
    `shadow_answer`, `label` and `input` (flat float32 arrays) are lists, None where the log holds nothing: an `answer`
    of None is "I do not know". Without `features` their array is empty, and the log may hold those of several models.
    UserError where there is no log, or none that can be read.
    """
    import numpy as np  # notebooks that read no log need not wait for it

    rows = _rows(newest, seconds, version)
    columns = {name: [row[name] for row in rows] for name in TEXTS}
    for name in NUMBERS:
        columns[name] = np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)
    for name in ("features", "input"):
        columns[name] = [None if row[name] is None or name == "features" and not features
                         else np.frombuffer(row[name], dtype="<f4") for row in rows]
    lengths = {len(each) for each in columns["features"] if each is not None}
    if len(lengths) > 1:
        raise UserError(f"{LOG} holds features of {' and '.join(map(str, sorted(lengths)))} numbers, of several models: "
                      "name the version whose answers are to be read, or read without features.")
    length = lengths.pop() if lengths else 0
    empty = np.full(length, np.nan, dtype=np.float32)
    columns["features"] = np.array([empty if each is None else each for each in columns["features"]],
                                   dtype=np.float32).reshape(len(rows), length)
    return columns


def place() -> Path:
    """Where the log is; UserError where there is none."""
    path = Path(os.environ.get("SERVED") or root() / "served") / "log.sqlite"
    if not path.is_file():
        shown = path if os.environ.get("SERVED") else LOG
        raise UserError(f"There is no log {shown} yet: nbproof serve writes it while it answers.")
    return path.resolve()


def newest_version() -> str | None:
    """The version of the model that gave the newest answer; None where there is none yet. UserError as `served` is."""
    found = _asked("SELECT version FROM answers ORDER BY time DESC, rowid DESC LIMIT 1")
    return found[0]["version"] if found else None


def _rows(newest: int | None, seconds: float | None, version: str | None) -> list[sqlite3.Row]:
    since = -1.0 if seconds is None else time.time() - seconds
    return _asked(QUERY, since, version, version, -1 if newest is None else newest)[::-1]


def _asked(query: str, *values) -> list[sqlite3.Row]:
    path = place()
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            connection.row_factory = sqlite3.Row
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise UserError(f"{LOG} cannot be read ({error}): move it away, and nbproof serve begins a new one.") from None
