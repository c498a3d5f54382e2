"""Send to the tracking server the runs that it did not take while notebooks ran; idempotent."""

import sys

from filelock import FileLock

from nbproof.notebook import tracking
from nbproof.notebook.errors import trace
from nbproof.notebook.files import root


def sync() -> int:
    """Send every run that has ended and the server has not; return 0 if nothing is left."""
    if tracking.address() == tracking.local_address():
        print("There is no tracking server to send to: every run is in mlflow.db. "
              "nbproof remote names a server.")
        return 0
    local, server = tracking.client(tracking.local_address()), tracking.client()
    shown, sent, failed = tracking.without_credentials(tracking.address()), [], []
    with FileLock(root() / "mlflow.db.sync.lock"):  # two would delete each other's partial copies
        tracking.close_dead_runs(local)
        ended = f"tags.{tracking.UNSENT} != '' and attributes.status != 'RUNNING'"
        for run in tracking.runs(local, ended):
            name = run.data.tags["notebook"]
            try:
                tracking.copy_run(local, run.info.run_id, server)
                sent.append(name)
            except Exception as error:  # of any library below MLflow's client: S3, Azure
                trace()
                failed.append(name)
                reason = tracking.without_credentials(str(error))
                print(f"MLflow at {shown} did not take the run of {name}: {reason}",
                      file=sys.stderr)
    print(f"MLflow at {shown} took {len(sent)} runs{': ' * bool(sent)}{', '.join(sent)}.")
    if failed:
        print(f"{len(failed)} runs were not sent: nbproof sync again later.", file=sys.stderr)
    return 1 if failed else 0
