"""MLflow's own page on the local store, opened on the project's trainings."""

import os
import subprocess
import sys

from nbproof.notebook import tracking
from nbproof.notebook.files import root
from nbproof.pipeline import config


def serve(port: int) -> int:
    """Serve the page at `port` of this machine until Ctrl-C; return MLflow's exit code."""
    if tracking.address() != tracking.local_address():
        print(f"The runs are at {tracking.without_credentials(tracking.address())}.")
        return 0
    name = config.load().name
    experiment = tracking.experiment(tracking.client(), name)
    # By its first word, the page opens for trainings and not for GenAI.
    print(f"MLflow shows the runs of {name} in a few seconds, until Ctrl-C:\nhttp://127.0.0.1:{port}"
          f"/#/experiments/{experiment}/runs?workflowType=machine_learning", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1",
               "--backend-store-uri", tracking.local_address(),
               "--uvicorn-opts", "--log-level error"]
    variables = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return subprocess.run(command, cwd=root(), env=variables).returncode
