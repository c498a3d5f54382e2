"""The server's log served/log.sqlite, read and never written: its answers and their labels.

The variable NBPROOF_SERVED names the folder of the log where the server runs in another copy of the
project.
"""

import contextlib
import os
import sqlite3
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root

LOG = "served/log.sqlite"
TEXTS = ("id", "version", "model", "answer", "best", "shadow_version", "shadow_answer", "label")
NUMBERS = ("time", "probability", "strangeness", "milliseconds")
# The newest label of an answer counts; of two at one time, the one that was written last.
QUERY = """
SELECT answers.*, (SELECT label FROM labels WHERE labels.id = answers.id
                   ORDER BY time DESC, rowid DESC LIMIT 1) AS label
FROM answers WHERE ? IN (version, '') ORDER BY time DESC, answers.rowid DESC LIMIT ?
"""


def served(
    newest: int | None = None, version: str | None = None, features: bool = True,
) -> dict:
    """Return the log's answers by columns, the oldest first: all, or the `newest`, or of `version`.

    NUMBERS are arrays, NaN where the log holds nothing. `features` is an array [N, F]; F is 0 where
    a model has none, and without `features`, which must be of one model. TEXTS and `input` (flat
    float32 arrays) are lists, None where the log holds nothing: an `answer` of None is "I do not
    know". Raise UserError where there is no log, or none that can be read.
    """
    import numpy as np  # notebooks that read no log need not wait for it

    rows = _rows(QUERY, version or "", -1 if newest is None else newest)[::-1]
    columns = {name: [row[name] for row in rows] for name in TEXTS}
    for name in NUMBERS:  # None becomes NaN
        columns[name] = np.array([row[name] for row in rows], dtype=np.float64)
    for name in ("features", "input"):
        columns[name] = [blob if blob is None else np.frombuffer(blob, dtype="<f4")
                         for blob in (row[name] for row in rows)]
    known = [value for value in columns["features"] if value is not None] if features else []
    lengths = {len(value) for value in known} or {0}
    if len(lengths) > 1:
        counts = " and ".join(map(str, sorted(lengths)))
        raise UserError(f"{LOG} holds features of {counts} numbers, of several models: name the "
                        "version whose answers are to be read, or read without features.")
    table = np.full((len(rows), lengths.pop()), np.nan, dtype=np.float32)
    for number, value in enumerate(columns["features"] if known else ()):
        table[number] = np.nan if value is None else value
    return columns | {"features": table}


def path() -> Path:
    """Return the log's file; UserError where there is none."""
    folder = Path(os.environ.get("NBPROOF_SERVED") or root() / "served")
    if not (file := folder / Path(LOG).name).is_file():
        shown = file if os.environ.get("NBPROOF_SERVED") else LOG
        raise UserError(f"There is no log {shown} yet: nbproof serve writes it while it answers.")
    return file.resolve()


def newest_version() -> str | None:
    """Return the version of the model that gave the newest answer; None without any answer."""
    rows = _rows("SELECT version FROM answers ORDER BY time DESC, rowid DESC LIMIT 1")
    return rows[0]["version"] if rows else None


def _rows(query: str, *values: str | int) -> list[sqlite3.Row]:
    address = f"{path().as_uri()}?mode=ro"  # quoted, and no reader makes a file
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise UserError(f"{LOG} cannot be read ({error}): move it away, and nbproof serve begins "
                        "a new one.") from None
