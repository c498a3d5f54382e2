"""The log of the server as notebooks read it: columns in order of time, the newest label, and what is refused."""

import sqlite3

import numpy as np
import pytest

from nbproof.notebook import served
from nbproof.notebook.errors import UserError

SCHEMA = """
CREATE TABLE answers(id TEXT PRIMARY KEY, time REAL, version TEXT, model TEXT, answer TEXT, best TEXT, probability REAL,
  strangeness REAL, milliseconds REAL, shadow_version TEXT, shadow_answer TEXT, features BLOB, input BLOB);
CREATE TABLE labels(id TEXT, time REAL, label TEXT);
"""


def answer(number: int, when: float, version: str = "1", features=(1.0, 2.0), answer: str | None = "a") -> tuple:
    kept = None if features is None else np.array(features, dtype="<f4").tobytes()
    return (f"id{number}", when, version, "net", answer, "a", 0.9, None, 1.5, None, None, kept, None)


@pytest.fixture
def log(tmp_path, inside):
    """A project, and a function that writes its log: rows of answers, rows of labels."""
    (tmp_path / "project.yaml").write_text("name: x\nmetric: {key: k, goal: min}\n")
    inside(tmp_path)

    def write(answers: list[tuple], labels: list[tuple] = ()) -> None:
        (tmp_path / "served").mkdir()
        with sqlite3.connect(tmp_path / served.LOG) as connection:
            connection.executescript(SCHEMA)
            connection.executemany(f"INSERT INTO answers VALUES ({', '.join('?' * 13)})", answers)
            connection.executemany("INSERT INTO labels VALUES (?, ?, ?)", labels)
        connection.close()

    return write


def test_columns_are_in_order_of_time_with_the_newest_label(log):
    log([answer(2, 20.0, answer=None), answer(1, 10.0), answer(3, 30.0, features=None)],
        [("id1", 12.0, "b"), ("id1", 11.0, "c"), ("id2", 21.0, "d"), ("id2", 21.0, "e"), ("gone", 1.0, "f")])
    read = served.served()
    assert read["id"] == ["id1", "id2", "id3"] and read["time"].tolist() == [10.0, 20.0, 30.0]
    assert read["label"] == ["b", "e", None] and read["answer"] == ["a", None, "a"]
    assert read["features"].shape == (3, 2) and read["features"][0].tolist() == [1.0, 2.0]
    assert np.isnan(read["features"][2]).all() and np.isnan(read["strangeness"]).all() and read["input"] == [None] * 3


def test_a_part_of_the_log(log):
    log([answer(number, 1e12 if number > 3 else 10.0 + number, version="2" if number == 2 else "1")
         for number in range(1, 6)])
    assert served.served(newest=2)["id"] == ["id4", "id5"]
    assert served.served(seconds=60)["id"] == ["id4", "id5"]
    assert served.served(version="2")["id"] == ["id2"] and served.newest_version() == "1"
    assert served.served(version="3")["features"].shape == (0, 0)


def test_features_of_two_models_do_not_mix(log):
    log([answer(1, 1.0), answer(2, 2.0, version="2", features=(1.0,))])
    with pytest.raises(UserError, match="1 and 2 numbers, of several models: name the version"):
        served.served()
    assert served.served(version="2")["features"].tolist() == [[1.0]]
    assert served.served(features=False)["features"].shape == (2, 0)


def test_no_log_and_a_broken_one(tmp_path, log):
    with pytest.raises(UserError, match="no log served/log.sqlite yet: nbproof serve writes it"):
        served.served()
    (tmp_path / "served").mkdir()
    (tmp_path / served.LOG).write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="cannot be read .*: move it away"):
        served.served()


def test_the_log_of_another_folder(tmp_path, log, monkeypatch):
    log([answer(1, 1.0)])
    (tmp_path / "served").rename(tmp_path / "elsewhere")
    monkeypatch.setenv("SERVED", str(tmp_path / "elsewhere"))
    assert served.served()["id"] == ["id1"]
    monkeypatch.setenv("SERVED", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no log .*nowhere/log.sqlite yet"):
        served.served()


def test_what_the_server_writes_is_read_while_it_writes(tmp_path, log):
    """The writer's own tables, in WAL, open in another thread; and once more when it has closed them."""
    from nbproof.serve.log import Entry, Log, place

    assert place() == tmp_path / served.LOG
    features, image = (np.arange(count, dtype="<f4").tobytes() for count in (3, 4))
    writer = Log(place())
    try:
        for number in range(5):
            writer.put(Entry(f"id{number}", 10.0 + number, "2", "net", None if number else "7", "7", 0.5, 1.5, 2.5,
                             features=features, input=image))
        writer.label("id4", "4").result(timeout=20)
        open_ = served.served()
    finally:
        writer.close()
    closed = served.served()
    for read in (open_, closed):
        assert read["id"] == [f"id{number}" for number in range(5)] and read["label"] == [None] * 4 + ["4"]
        assert read["answer"] == ["7", None, None, None, None] and read["strangeness"].tolist() == [1.5] * 5
        assert read["features"].tolist() == [[0.0, 1.0, 2.0]] * 5 and read["input"][2].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert served.newest_version() == "2"


def test_reading_writes_nothing(tmp_path, log):
    log([answer(1, 1.0)])
    before = {path.name: path.read_bytes() for path in (tmp_path / "served").iterdir()}
    served.served()
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "served").iterdir()}
