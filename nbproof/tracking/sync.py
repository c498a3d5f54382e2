"""Send to the tracking server the runs that it did not take while notebooks ran; idempotent."""

import sys

from filelock import FileLock, Timeout

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError, trace
from nbproof.notebook.files import root


def sync() -> int:
    """Send every run that has ended and the server has not; return 0 if nothing is left."""
    if tracking.address() == tracking.local_address():
        print("There is no tracking server to send to: every run is in mlflow.db. "
              "nbproof remote names a server.")
        return 0
    try:
        with FileLock(root() / "mlflow.db.sync.lock", timeout=0):
            return _sync(tracking.client(tracking.local_address()))
    except Timeout:
        raise UserError("Another `nbproof sync` is at work in this folder: wait for it to "
                        "end.") from None


def _sync(local) -> int:
    tracking.close_dead_runs(local)
    server, shown = tracking.client(), tracking.without_credentials(tracking.address())
    sent, working, failed = [], [], []
    for run in tracking.runs(local, f"tags.{tracking.UNSENT} != ''"):
        name = run.data.tags["notebook"]
        if run.info.status == "RUNNING":
            working.append(name)
            continue
        try:
            tracking.send(local, run.info.run_id, server)
            sent.append(name)
        except Exception as error:  # of any library below MLflow's client: S3, Azure
            trace()
            failed.append(name)
            reason = tracking.without_credentials(str(error))
            print(f"MLflow at {shown} did not take the run of {name}: {reason}", file=sys.stderr)
    print(f"MLflow at {shown} took {len(sent)} runs{': ' * bool(sent)}{', '.join(sent)}.")
    if working:
        print(f"Still at work, and sent the next time: {', '.join(working)}.")
    if failed:
        print(f"{len(failed)} runs were not sent: nbproof sync again later.", file=sys.stderr)
    return 1 if failed else 0
