"""MLflow's page opens on the project's trainings, at the address that is printed."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

from nbproof.notebook import tracking


def test_the_address_opens_the_experiment_of_the_project(trained):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "nbproof", "ui", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          start_new_session=True) as page:
        address = page.stdout.readline() and page.stdout.readline().strip()
        number = re.search(r"/#/experiments/(\d+)/runs\?workflowType=machine_learning$", address)[1]
        assert tracking.client().get_experiment(number).name == "small"
        ends, status = time.monotonic() + 120, 0
        while status != 200 and page.poll() is None and time.monotonic() < ends:
            with contextlib.suppress(OSError), urlopen(address) as answer:
                status = answer.status
            time.sleep(0.2)
        os.killpg(page.pid, signal.SIGINT)
        printed = page.stdout.read()
    assert status == 200 and "Traceback" not in printed, printed
