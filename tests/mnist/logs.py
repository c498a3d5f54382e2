"""A log as the server writes it, of images that a model really answers, for tests of what reads it."""

import sqlite3
from pathlib import Path

import numpy as np

from mnist.portable import Portable
from nbproof.notebook import served

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers(id TEXT PRIMARY KEY, time REAL, version TEXT, model TEXT, answer TEXT, best TEXT,
  probability REAL, strangeness REAL, milliseconds REAL, shadow_version TEXT, shadow_answer TEXT, features BLOB,
  input BLOB);
CREATE TABLE IF NOT EXISTS labels(id TEXT, time REAL, label TEXT);
"""


def write(folder: Path, model: Portable, images: np.ndarray, labels: dict[int, str] | None = None,
          keep_images: bool = True, milliseconds: float = 2.0, name: str = "cnn") -> None:
    """Add the answers of `model` for normalised images [N, 1, 28, 28]; `labels` by the place of the image."""
    (folder / "served").mkdir(exist_ok=True)
    said = model(images)
    with sqlite3.connect(folder / served.LOG) as connection:
        connection.executescript(SCHEMA)
        begun = connection.execute("SELECT count(*) FROM answers").fetchone()[0]
        rows = zip(said["probabilities"], said["features"], said["strangeness"])
        for place, (chances, features, strangeness) in enumerate(rows):
            best = str(chances.argmax())
            answer = best if strangeness <= model.limit else None
            row = (f"id{begun + place}", 1000.0 + begun + place, "1", name, answer, best, float(chances.max()),
                   float(strangeness), milliseconds, "2", answer, features.tobytes(),
                   images[place].astype("<f4").tobytes() if keep_images else None)
            connection.execute(f"INSERT INTO answers VALUES ({', '.join('?' * 13)})", row)
        connection.executemany("INSERT INTO labels VALUES (?, ?, ?)",
                               [(f"id{begun + place}", 5000.0, label) for place, label in (labels or {}).items()])
    connection.close()
