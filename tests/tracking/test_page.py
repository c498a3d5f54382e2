"""MLflow's page opens on the project's trainings, and its address is the last that is printed."""

import os
import signal
import socket
import subprocess
import sys
from urllib.request import urlopen


def test_the_address_comes_last_when_the_page_is_up(trained):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "nbproof", "ui", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          start_new_session=True) as page:
        assert page.stdout.readline() == "MLflow shows the runs until Ctrl-C:\n"
        address = page.stdout.readline().strip()
        assert address.endswith("/runs?workflowType=machine_learning")
        with urlopen(address) as answer:
            assert answer.status == 200
        os.killpg(page.pid, signal.SIGINT)
        assert "Traceback" not in page.stdout.read()
