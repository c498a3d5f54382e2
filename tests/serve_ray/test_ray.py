"""The application on a real cluster: swaps without a failed request, one log, lost nodes."""

import contextlib
import sqlite3
import time

import pytest
from serving import ZERO, Server, free_port, load


@pytest.fixture(scope="module")
def server(served, nodes) -> Server:
    made = served.start("--replicas", "2", "3", "--port", str(free_port()), ready=False,
                        **nodes.variables)
    made.listens(240)
    return made


def test_swaps_under_load_fail_no_request(server, served):
    with load(server) as found:
        for turn in range(4):
            served.move("champion", 2 - turn % 2)
            time.sleep(4)
    assert {*found} == {("1", "7", 0.9), ("2", "3", 0.9)} and len(found) > 50
    served.move("champion", 1)
    server.until(lambda: {server.predicts() for _ in range(8)} == {"7"}, 60)


def test_labels_of_all_replicas_are_in_the_one_log_also_after_a_node_is_lost(server, served, nodes):
    acknowledged = set()

    def label() -> bool:
        status, content = server.ask("/invocations", {"inputs": ZERO})
        if status == 200:
            id = content["ids"][0]
            status, _ = server.ask("/label", {"id": id, "label": "4"})
            acknowledged.update([id] if status == 200 else [])
        return status == 200

    assert all(label() for _ in range(10))
    unknown = server.ask("/label", {"id": "none", "label": "4"})
    assert unknown == (400, {"error_code": "BAD_REQUEST",
                             "message": "The log has no prediction with this id."})
    nodes.kill(1)
    server.until(lambda: all(label() for _ in range(10)), 120)  # Ray Serve's own health checks
    with contextlib.closing(sqlite3.connect(served.root / "served/log.sqlite")) as database:
        assert acknowledged <= {id for id, in database.execute("SELECT id FROM labels")}
    assert server.stop() == 0 and "Traceback" not in server.text(), server.text()


def test_a_cluster_that_is_away_is_told_in_a_sentence(served):
    server = served.start(ready=False, RAY_ADDRESS="ray://127.0.0.1:1")
    assert server.process.wait(60) == 2
    assert "cannot be reached" in server.text() and "Traceback" not in server.text()
