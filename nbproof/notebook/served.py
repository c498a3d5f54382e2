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
FROM answers WHERE version = ifnull(?, version)
ORDER BY time DESC, answers.rowid DESC LIMIT ifnull(?, -1)
"""


def served(newest: int | None = None, version: str | None = None, features: bool = True) -> dict:
    """Return the log's answers by columns, the oldest first: all, or the `newest`, or of `version`.

    NUMBERS are arrays, NaN where the log holds nothing. `features` is an array [N, F]; F is 0 where
    a model has none, and without `features`, which must be of one model. TEXTS and `input` (flat
    float32 arrays) are lists, None where the log holds nothing: an `answer` of None is "I do not
    know". Raise UserError where there is no log, or none that can be read.
    """
    import numpy as np  # notebooks that read no log need not wait for it

    address = f"{path().as_uri()}?mode=ro"  # quoted, and no reader makes a file
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute(QUERY, (version, newest)).fetchall()[::-1]
    except sqlite3.Error as error:
        raise UserError(f"{LOG} cannot be read ({error}): move it away, and nbproof serve begins "
                        "a new one.") from None
    columns = {name: [row[name] for row in rows] for name in TEXTS}
    for name in NUMBERS:  # None becomes NaN
        columns[name] = np.array([row[name] for row in rows], dtype=np.float64)
    for name in ("features", "input"):
        columns[name] = [None if row[name] is None else np.frombuffer(row[name], dtype="<f4")
                         for row in rows]
    vectors = columns["features"] if features else [None] * len(rows)
    lengths = sorted({len(vector) for vector in vectors if vector is not None}) or [0]
    if len(lengths) > 1:
        raise UserError(f"{LOG} holds features of {' and '.join(map(str, lengths))} numbers, of "
                        "several models: name the version to be read, or read without features.")
    missing = np.full(lengths[0], np.nan, dtype=np.float32)
    table = [missing if vector is None else vector for vector in vectors]
    return columns | {"features": np.array(table, np.float32).reshape(len(rows), lengths[0])}


def path() -> Path:
    """Return the log's file; UserError where there is none."""
    file = Path(os.environ.get("NBPROOF_SERVED") or root() / "served") / "log.sqlite"
    if not file.is_file():
        raise UserError(f"There is no log {LOG} yet: nbproof serve writes it.")
    return file.resolve()


def newest_version() -> str | None:
    """Return the version of the model that gave the newest answer; None without any answer."""
    return next(iter(served(newest=1, features=False)["version"]), None)
