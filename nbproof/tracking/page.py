"""MLflow's own page on the local store, opened on the project's trainings."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from urllib.request import urlopen

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import config

VIEW = "nbproof"  # the name of the shared view, which an experiment's tag describes


def serve(port: int) -> int:
    """Serve the page at `port` of this machine until Ctrl-C, and print its address once it is up.

    UserError, with MLflow's last words, where it does not start.
    """
    if tracking.address() != tracking.local_address():
        print(f"The runs are at {tracking.without_credentials(tracking.address())}.")
        return 0
    client, project = tracking.client(), config.load()
    tracking.close_dead_runs(client)
    experiment = tracking.experiment(client, project.name)
    columns = ["attributes.`Date`", "attributes.`Source`", f"metrics.`{project.metric.key}`"]
    view = json.dumps({"selectedColumns": columns})
    client.set_experiment_tag(experiment, f"mlflow.sharedViewState.{VIEW}", view)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1",
               "--backend-store-uri", tracking.local_address()]
    variables = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # Its warnings would hide the address.
    with tempfile.TemporaryFile() as log, subprocess.Popen(
            command, cwd=root(), env=variables, stdout=log, stderr=log) as server:
        try:
            while not _answers(port):
                if server.poll() is not None:
                    log.seek(0)
                    words = log.read().decode(errors="replace").strip()
                    raise UserError(f"MLflow's page did not start: {words.rpartition(chr(10))[2]}")
                time.sleep(0.1)
            # By its first word, the page opens for trainings and not for GenAI.
            print(f"MLflow shows the runs until Ctrl-C:\nhttp://127.0.0.1:{port}/#/experiments/"
                  f"{experiment}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}",
                  flush=True)
            return server.wait()
        finally:
            server.terminate()


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False
