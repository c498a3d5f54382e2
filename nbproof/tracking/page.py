"""MLflow's own page on the local store, opened on the project's trainings."""

import os
import subprocess
import sys
import tempfile

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import config


def serve(port: int) -> int:
    """Serve the page at `port` of this machine until Ctrl-C.

    UserError, with MLflow's last words, where it ends before.
    """
    if tracking.address() != tracking.local_address():
        print(f"The runs are at {tracking.without_credentials(tracking.address())}.")
        return 0
    name = config.load().name
    experiment = tracking.experiment(tracking.client(), name)
    # By its first word, the page opens for trainings and not for GenAI.
    print(f"MLflow shows the runs of {name} in a few seconds, until Ctrl-C:\nhttp://127.0.0.1:{port}"
          f"/#/experiments/{experiment}/runs?workflowType=machine_learning", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1",
               "--backend-store-uri", tracking.local_address()]
    variables = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with tempfile.TemporaryFile() as log:  # of every request, and a traceback for Ctrl-C
        subprocess.run(command, cwd=root(), env=variables, stdout=log, stderr=log)
        log.seek(0)
        words = log.read().decode(errors="replace").strip().splitlines() or ["no word"]
    raise UserError(f"MLflow's page ended: {words[-1]}")
