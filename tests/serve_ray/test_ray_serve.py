"""The server on a real cluster: the same answers, models that move everywhere, lost nodes, and no request failed."""

import contextlib
import json
import re
import signal
import sqlite3
import subprocess
import threading
import time

import numpy as np
import psutil
import pytest
from portable_models import portable
from serving import ZERO, Load, Served

SOME = np.random.default_rng(5).normal(size=(200, 1, 28, 28)).round(3).tolist()


@pytest.fixture(scope="module")
def project(tmp_path_factory, python, nets) -> Served:
    """A project whose champion, version 1, says 7, and whose version 2 says 3."""
    made = Served(tmp_path_factory.mktemp("project") / "project", python)
    made.register(nets[7])
    made.register(nets[3])
    made.move("champion", 1)
    yield made
    for server in made.servers:
        server.stop()


@pytest.fixture(scope="module")
def server(project, nodes):
    """The server on the cluster, which all of these tests ask."""
    made = project.start("--replicas", "2:3", ready=False, **nodes.variables)
    made.address = made.wait_for(r"is served at (http://\S+)", 200).group(1)
    return made


def replicas(server) -> list[dict]:
    return server.ask("/version")[1]["replicas"]


def again(server) -> float:
    return float(re.search(r"\nnbproof_asked_again_total (\S+)", server.ask("/metrics")[1].decode()).group(1))


def test_the_answers_are_those_of_one_machine(server, project):
    alone = project.start()
    for path, body, kind in (("/invocations", {"inputs": SOME}, "application/json"),
                             ("/invocations", {"inputs": "no"}, "application/json")):
        far, near = (each.ask(path, body, kind=kind) for each in (server, alone))
        for answer in (far[1], near[1]):
            answer.pop("ids", None)
        assert far == near
    assert far[0] == 400 and len({each["node"] for each in replicas(server)}) == 2
    alone.stop()


def test_the_shadow_is_asked_and_logged(server, project, nets):
    version = project.register(nets[3], "other", "challenger")
    server.until(lambda: server.ask("/version")[1]["shadow"])
    status, said = server.ask("/invocations", {"inputs": ZERO})
    assert status == 200 and said["answers"] == ["7"]

    def logged():
        with contextlib.closing(sqlite3.connect(project.root / "served" / "log.sqlite")) as database:
            asked = "SELECT answer, shadow_answer, shadow_version FROM answers WHERE id = ?"
            return database.execute(asked, said["ids"]).fetchone() == ("7", "3", version)

    server.until(logged)
    project.client.delete_registered_model_alias("drawn", "challenger")
    server.until(lambda: server.ask("/version")[1]["shadow"] is None)


def test_the_alias_moves_under_load(server, project):
    with Load(server) as load:
        for turn in range(5):
            project.move("champion", 2 - turn % 2)
            time.sleep(2)
        server.until(lambda: all("2 net" in each["holds"] for each in replicas(server)))
    assert load.wrong == [] and load.count > 50
    assert load.seen == {("1", "7", 0.9), ("2", "3", 0.9)}
    assert server.says() == "3" and len(replicas(server)) >= 2
    project.move("champion", 1)
    server.until(lambda: server.says() == "7")


def test_a_model_that_fails_its_check_reaches_no_replica(server, project, tmp_path):
    version = project.register(portable(tmp_path / "wrong.onnx", 3, right=False))
    server.until(lambda: server.ask("/version")[1]["refused"])
    assert server.says() == "7" and not any(f"{version} net" in each["holds"] for each in replicas(server))
    project.move("champion", 1)
    server.until(lambda: not server.ask("/version")[1]["refused"])


class Labels(threading.Thread):
    """A person who labels what was just answered, and remembers what was acknowledged."""

    def __init__(self, server):
        super().__init__()
        self.server, self.kept, self.ends, self.wrong = server, set(), threading.Event(), []

    def run(self):
        while not self.ends.wait(0.02):
            status, said = self.server.ask("/invocations", {"inputs": ZERO})
            if status != 200:
                self.wrong.append(said)
                continue
            status, labelled = self.server.ask("/label", {"id": said["ids"][0], "label": "4"})
            if status == 200:
                self.kept.add(said["ids"][0])
            else:
                self.wrong.append(labelled)


def family(nodes, number: int) -> list[psutil.Process]:
    top = psutil.Process(nodes.processes[number].pid)
    return [top, *top.children(recursive=True)]


def test_a_node_that_falls_silent_costs_no_request(server, nodes):
    before = again(server)
    stopped = family(nodes, 2)
    with Load(server, 8) as load:
        time.sleep(1)
        for each in stopped:
            each.suspend()
        time.sleep(6)
        for each in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.resume()
        time.sleep(1)
    assert load.wrong == [] and load.count > 50
    assert again(server) > before and 2 <= load.slowest < 10  # it was really asked, and another answered


def test_a_killed_node_costs_no_request_and_no_label(server, nodes, project):
    server.until(lambda: len(replicas(server)) >= 2)
    before, seen = again(server), {each["node"] for each in replicas(server)}
    people = Labels(server)
    people.start()
    with Load(server, 8) as load:
        time.sleep(2)
        for each in family(nodes, 1):  # so that questions are on their way there
            each.suspend()
        time.sleep(1)
        killed = load.count
        nodes.kill(1)
        time.sleep(6)
    people.ends.set()
    people.join()
    assert load.wrong == [] and people.wrong == []
    assert load.count > killed + 50 and again(server) > before
    server.until(lambda: len(replicas(server)) >= 2, 60)
    assert len({each["node"] for each in replicas(server)} & seen) < len(seen)
    with contextlib.closing(sqlite3.connect(project.root / "served" / "log.sqlite")) as database:
        kept = {id for id, in database.execute("SELECT id FROM labels")}
    assert len(people.kept) > 10 and people.kept <= kept
    nodes.start(f"--address={nodes.address}")


def test_replicas_come_with_the_load_and_go(server):
    numbers = set()

    def number() -> int:
        numbers.add(len(replicas(server)))
        return len(replicas(server))

    with Load(server, 24) as load:
        server.until(lambda: number() == 3, 90)
        time.sleep(5)
        number()
    assert load.wrong == []
    server.until(lambda: number() == 2, 90)
    assert numbers <= {2, 3}


def applications(nodes, python) -> list[str]:
    """What Ray Serve has on the cluster."""
    code = ("import json, ray; from ray import serve; ray.init(log_to_driver=False, logging_level='ERROR')\n"
            "print(json.dumps(sorted(serve.status().applications)))")
    done = subprocess.run([python, "-c", code], env=nodes.variables, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_end_leaves_the_rest_of_the_cluster(server, nodes, python):
    assert len(applications(nodes, python)) == 1
    before = len(server.text())
    server.stop(signal.SIGTERM)
    assert applications(nodes, python) == [] and server.text()[before:] == ""


@pytest.mark.parametrize(("address", "replicas", "why"), [
    ("127.0.0.1:1", "", "Ray at 127.0.0.1:1 .* cannot be reached: "),
    ("127.0.0.1:1", "4:2", "--replicas must be the least and the most, such as 2:4, found "),
    ("ray://127.0.0.1:1", "", "RAY_ADDRESS must be HOST:PORT here"),
    ("", "2:4", "--replicas is for a cluster: set RAY_ADDRESS, too"),
])
def test_what_cannot_be_is_said_in_a_sentence(served, nets, address, replicas, why):
    served.register(nets[7])
    server = served.start("--replicas", replicas, ready=False, **({"RAY_ADDRESS": address} if address else {}))
    assert server.process.wait(60) == 2
    assert re.fullmatch(why + r"[^\n]*[.]\n", server.text()), server.text()
