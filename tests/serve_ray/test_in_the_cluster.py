"""docs/production/rayservice.yaml: what it deploys answers on a cluster here."""

import json
import os
import re
import socket
import subprocess
import urllib.request

import pytest
from cluster import cluster
from ruamel.yaml import YAML
from serving import ROOT, ZERO, Served, Server

FILE = ROOT / "docs" / "production" / "rayservice.yaml"
TOKEN = "0123456789abcdef0123"


def content() -> dict:
    return YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))


def test_ray_has_one_version():
    versions = {re.search(r"^ray==(\S+)", (ROOT / f"requirements/{name}.txt").read_text(), re.MULTILINE)[1]
                for name in ("sweep", "serve-ray")}
    assert versions == {content()["spec"]["rayClusterConfig"]["rayVersion"]}


@pytest.fixture
def deployed(tmp_path, python, nets):
    """What the file deploys, on a cluster of one node that stands in a project, as a container stands in /app."""
    with cluster(1, cpus=2, python=python, options=("--resources", '{"log": 1}')) as made:
        project = Served(made.folder, python)
        project.register(nets[7])
        config = YAML(typ="safe").load(content()["spec"]["serveConfigV2"])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config["http_options"] = {"host": "127.0.0.1", "port": port}
        config["applications"][0]["args"]["replicas"] = "1:2"
        config["applications"][0]["runtime_env"] = {"env_vars": {"PYTHONPATH": str(ROOT), "NBPROOF_TOKEN": TOKEN}}
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        with (tmp_path / "said").open("wb") as said:
            process = subprocess.Popen([python.with_name("serve"), "run", tmp_path / "config.yaml"], stdout=said,
                                       stderr=said, cwd=tmp_path, env=dict(os.environ) | made.variables)
        server = Served.attached(process, tmp_path / "said")
        server.address = f"http://127.0.0.1:{port}"
        try:
            server.until(lambda: ready(server), 150)
            yield project, server
        finally:
            server.stop()


def ready(server: Server) -> bool:
    assert server.process.poll() is None, server.text()
    try:
        return server.ask("/ready")[0] == 200
    except OSError:
        return False


def ask(server: Server, path: str, body=None):
    return server.ask(path, body, Authorization=f"Bearer {TOKEN}")


def test_what_it_deploys_answers_and_follows_the_registry(deployed, nets):
    project, server = deployed
    assert server.ask("/version")[0] == 401  # the token is asked for
    status, said = ask(server, "/invocations", {"inputs": ZERO})
    assert status == 200 and said["answers"] == ["7"]
    assert ask(server, "/label", {"id": said["ids"][0], "label": "3"})[0] == 200
    with urllib.request.urlopen(server.address, timeout=30) as page:
        assert b"<title>" in page.read() and page.headers["content-security-policy"]
    assert (project.root / "served" / "log.sqlite").exists()
    project.register(nets[3])
    server.until(lambda: ask(server, "/invocations", {"inputs": ZERO})[1]["answers"] == ["3"])
    assert all("2 net" in each["holds"] for each in ask(server, "/version")[1]["replicas"])
