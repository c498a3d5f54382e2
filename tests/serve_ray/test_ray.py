"""The application on a real cluster: swaps without a failed request, one log, lost nodes."""

import json
import os
import re
import sqlite3
import time

import pytest
from cluster import cluster
from portable_models import portable
from ruamel.yaml import YAML
from serving import ROOT, TOKEN, ZERO, Load, Served, Server, free_port

FILE = ROOT / "docs" / "production" / "rayservice.yaml"


@pytest.fixture(scope="module")
def server(served, nodes) -> Server:
    made = served.start("--replicas", "2:3", "--port", str(free_port()), ready=False,
                        **nodes.variables)
    made.listens(240)
    return made


def test_swaps_under_load_fail_no_request(server, served):
    with Load(server) as load:
        for turn in range(4):
            served.move("champion", 2 - turn % 2)
            time.sleep(4)
    assert load.wrong == [] and load.count > 50
    assert load.seen == {("1", "7", 0.9), ("2", "3", 0.9)}
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
    nodes.kill(1)
    server.until(lambda: all(label() for _ in range(10)), 120)  # Ray Serve's own health checks
    with sqlite3.connect(served.root / "served" / "log.sqlite") as database:
        kept = {id for id, in database.execute("SELECT id FROM labels")}
    assert acknowledged <= kept


def test_ctrl_c_removes_the_application(server):
    assert server.stop() == 0 and "Traceback" not in server.text(), server.text()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_away_is_told_in_a_sentence(served, address):
    server = served.start(ready=False, RAY_ADDRESS=address)
    assert server.process.wait(60) == 2
    assert "cannot be reached" in server.text() and "Traceback" not in server.text()


def test_what_the_rayservice_deploys_follows_the_registry_itself(tmp_path, python):
    content = YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))
    versions = {re.search(r"^ray==(\S+)", (ROOT / f"requirements/{name}.txt").read_text(),
                          re.MULTILINE)[1] for name in ("sweep", "serve-ray")}
    assert versions == {content["spec"]["rayClusterConfig"]["rayVersion"]}
    config = YAML(typ="safe").load(content["spec"]["serveConfigV2"])
    port = free_port()
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    config["applications"][0]["args"]["replicas"] = "1:2"
    config["applications"][0]["runtime_env"] = {
        "env_vars": {"PYTHONPATH": str(ROOT), "NBPROOF_TOKEN": TOKEN}}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    with cluster(1, cpus=2, python=python, options=("--resources", '{"log": 1}')) as made:
        # The nodes stand in the project, as containers stand in /app.
        project = Served(made.folder, python)
        project.register(portable(tmp_path / "7.onnx", 7))
        server = Server([python.with_name("serve"), "run", tmp_path / "config.yaml"], tmp_path,
                        dict(os.environ) | made.variables)
        server.address = f"http://127.0.0.1:{port}"

        def predicts() -> str:
            assert server.process.poll() is None, server.text()
            try:
                status, content = server.ask("/invocations", {"inputs": ZERO},
                                             Authorization=f"Bearer {TOKEN}")
            except OSError:
                return ""
            return content["answers"][0] if status == 200 else ""

        server.until(lambda: predicts() == "7", 200)
        assert server.ask("/version")[0] == 401
        project.register(portable(tmp_path / "3.onnx", 3))
        server.until(lambda: predicts() == "3", 60)
        server.stop()
