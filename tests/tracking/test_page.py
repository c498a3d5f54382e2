"""MLflow's page opens on the project's trainings, and its address is the last that is printed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from urllib.request import urlopen

from nbproof.notebook import tracking


def test_the_address_comes_last_and_names_the_view_with_the_metric(trained):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "nbproof", "ui", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          start_new_session=True) as page:
        first, address = page.stdout.readline(), page.stdout.readline()
        assert first == "MLflow shows the runs of small until Ctrl-C:\n"
        number, view = re.search(r"/#/experiments/(\d+)/runs\?workflowType=machine_learning"
                                 r"&viewStateShareKey=(\w+)\n", address).groups()
        with urlopen(address.strip()) as answer:
            assert answer.status == 200
        tags = tracking.client().get_experiment(number).tags
        columns = json.loads(tags[f"mlflow.sharedViewState.{view}"])["selectedColumns"]
        assert "metrics.`rmse`" in columns
        os.killpg(page.pid, signal.SIGINT)
        assert "Traceback" not in page.stdout.read()
