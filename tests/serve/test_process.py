"""Real processes: swaps under load, connections that send nothing, what is refused, the image."""

import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
from serving import ROOT, environment_of_servers, load


def test_the_alias_moves_under_load(served, nets):
    versions = [served.register(nets[3]), served.register(nets[7])]
    server = served.start()
    with load(server) as found:
        for turn in range(6):
            served.move("champion", versions[turn % 2])
            time.sleep(1.5)
    assert {*found} == {(versions[0], "3", 0.9), (versions[1], "7", 0.9)} and len(found) > 100
    assert server.stop() == 0 and "Traceback" not in server.text()


def test_half_sent_headers_stop_nobody(served, nets):
    served.command[:0] = ["sh", "-c", 'ulimit -Sn 1024; exec "$0" "$@"']
    server = served.put(nets[7]).start()
    host, port = server.address.removeprefix("http://").split(":")
    held = []
    for _ in range(1100):
        held.append(socket.create_connection((host, int(port)), timeout=10))
        held[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
    assert server.ask("/health")[0] == 200 and server.predicts() == "7"
    held[-1].settimeout(20)
    assert held[-1].recv(1) == b"", "it is closed after the time for headers"
    for connection in held:
        connection.close()
    assert server.text().count("\n") < 5, server.text()


@pytest.mark.parametrize("words, variables, reason", [
    ([], {}, "as an output of its stage by models.save_onnx"),
    (["--host", "0.0.0.0"], {}, "set the environment variable NBPROOF_TOKEN"),
    ([], {"NBPROOF_TOKEN": "short"}, "at least 16 characters"),
])
def test_what_cannot_be_served_is_refused_before_anything_is_installed(
        served, words, variables, reason):
    served.command[0] = sys.executable  # this project has no requirements to install
    server = served.start(*words, ready=False, **variables)
    assert server.process.wait(60) == 2
    assert reason in server.text() and "Traceback" not in server.text(), server.text()


def test_a_port_that_is_taken(served, nets):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        server = served.put(nets[7]).start("--port", port, ready=False)
        assert server.process.wait(60) == 2 and "name another port" in server.text()


def test_the_files_of_the_image_are_enough(served, nets, tmp_path):
    """What the Dockerfile copies, in an empty folder: its set-up and its command, on loopback."""
    text, served.root = (ROOT / "docs/production/Dockerfile").read_text(), tmp_path / "app"
    served.put(nets[7])
    for line in re.findall(r"^COPY (.+)$", text, re.M):
        *names, target = line.split()
        for name in names:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, served.root / target)
    set_up = re.search(r"RUN python (\S+bootstrap.py .*?) &&", text)[1].split()
    subprocess.run([sys.executable, *set_up], cwd=served.root, check=True)
    python, *words = re.findall(r'"([^"]+)"', re.search(r"^CMD (.+)$", text, re.M)[1])
    served.command = [served.root / python, *words]
    del served.variables["PYTHONPATH"]
    server = served.start("--host", "127.0.0.1", "--port", "0")
    assert server.predicts() == "7" and server.ask("/")[0] == 200
    files = [*environment_of_servers().rglob("*")]
    assert sum(file.lstat().st_size for file in files) < 400e6
    assert not [file for file in files if file.name in ("torch", "mlflow", "dvc")]
