"""The server's log as notebooks read it: columns in order of time, newest labels, refusals."""

import numpy as np
import pytest

from nbproof.notebook import served
from nbproof.notebook.errors import UserError
from nbproof.serve.log import ANSWER, Log


@pytest.fixture
def log(tmp_path, inside):
    """A project, and a function that lets the server's own writer fill its log."""
    (tmp_path / "project.yaml").write_text("name: x\nmetric: {key: k, goal: min}\n")
    inside(tmp_path)

    def write(*entries: dict, labels: tuple[tuple[str, str], ...] = ()) -> Log:
        writer = Log(tmp_path / served.LOG)
        writer.put(ANSWER, list(entries))
        for name, label in labels:
            writer.label(name, label)
        return writer

    return write


def entry(number: int, when: float, version="1", features=(1.0, 2.0), answer="a", **more) -> dict:
    features = None if features is None else np.array(features, dtype="<f4").tobytes()
    return {"id": f"id{number}", "time": when, "version": version, "model": "net", "best": "a",
            "answer": answer, "probability": 0.9, "ood_score": None, "milliseconds": 1.5,
            "features": features, "input": None} | more


def test_columns_are_in_order_of_time_with_the_newest_label(log, tmp_path):
    image = np.arange(4, dtype="<f4").tobytes()
    writer = log(entry(2, 20.0, answer=None), entry(1, 10.0, input=image),
                 entry(3, 30.0, version="2", features=None),
                 labels=(("id1", "c"), ("id1", "b"), ("id2", "d")))
    open_, _ = served.served(), writer.close()  # read while the server writes, and after it
    before = (tmp_path / served.LOG).read_bytes()
    for read in (open_, served.served()):
        assert read["id"] == ["id1", "id2", "id3"] and read["time"].tolist() == [10.0, 20.0, 30.0]
        assert read["label"] == ["b", "d", None] and read["answer"] == ["a", None, "a"]
        assert read["features"].shape == (3, 2) and read["features"][0].tolist() == [1.0, 2.0]
        assert np.isnan(read["features"][2]).all() and np.isnan(read["strangeness"]).all()
        assert read["input"][0].tolist() == [0, 1, 2, 3] and read["input"][1:] == [None, None]
    assert served.newest_version() == "2"
    assert (tmp_path / served.LOG).read_bytes() == before, "reading writes nothing"


def test_a_part_of_the_log(log):
    """Features of two models do not mix."""
    log(*[entry(number, 10.0 + number, version, features=[1.0] * int(version))
          for number, version in enumerate("12111", start=1)]).close()
    assert served.served(newest=2)["id"] == ["id4", "id5"] and served.newest_version() == "1"
    second = served.served(version="2")
    assert second["id"] == ["id2"] and second["features"].tolist() == [[1.0, 1.0]]
    assert served.served(version="3")["features"].shape == (0, 0)
    with pytest.raises(UserError, match="1 and 2 numbers, of several models: name the version"):
        served.served()
    assert served.served(features=False)["features"].shape == (5, 0)


def test_a_log_that_cannot_be_read(tmp_path, log, monkeypatch):
    with pytest.raises(UserError, match="no log served/log.sqlite yet: nbproof serve writes it"):
        served.newest_version()
    log(entry(1, 1.0)).close()
    (tmp_path / "served").rename(tmp_path / "else%20where#ü")
    monkeypatch.setenv("NBPROOF_SERVED", str(tmp_path / "else%20where#ü"))
    assert served.served()["id"] == ["id1"]
    (tmp_path / "else%20where#ü" / "log.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="cannot be read .*: move it away"):
        served.served()
