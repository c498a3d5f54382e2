"""MLflow's page opens on the project's trainings, and its address is the last that is printed."""

import socket
import subprocess
import sys
from urllib.request import urlopen


def test_the_address_comes_last_when_the_page_is_up(trained):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "nbproof", "ui", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as page:
        lines = [page.stdout.readline(), page.stdout.readline().strip()]
        with urlopen(lines[1]) as answer:
            assert answer.status == 200
        page.terminate()  # it alone: MLflow's processes end with it, and so their output does
        assert "Traceback" not in page.stdout.read()
    assert lines[0] == "MLflow shows the runs until Ctrl-C:\n"
    assert lines[1].endswith("/runs?workflowType=machine_learning&viewStateShareKey=nbproof")
