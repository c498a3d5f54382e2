"""Sends to the tracking server what it did not take while a notebook ran: once, as often as it is called."""

import sys

from filelock import FileLock, Timeout

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError, trace
from nbproof.notebook.files import root


def sync() -> int:
    """Send every run that a server should have and that has ended; 0 if nothing is left."""
    if tracking.address() == tracking.local_address():
        print("There is no tracking server to send to: every run is in mlflow.db. make remote names a server.")
        return 0
    try:
        with FileLock(root() / "mlflow.db.sync.lock", timeout=0):
            return _sync()
    except Timeout:
        raise UserError("Another `make sync` is at work in this folder: wait for it to end.") from None


def waiting() -> bool:
    """Whether there is a tracking server that has not taken all runs yet."""
    local = tracking.local_address()
    return tracking.address() != local and (root() / "mlflow.db").exists() and bool(_unsent(tracking.client(local)))


def _unsent(local) -> list:
    return tracking.runs(local, f"tags.{tracking.UNSENT} != ''")


def _sync() -> int:
    local, store = tracking.client(tracking.local_address()), tracking.without_credentials(tracking.address())
    tracking.close_dead_runs(local)
    runs, sent, busy, refused = _unsent(local), [], [], []
    for run in runs:
        name = run.data.tags["notebook"]
        if run.info.status == "RUNNING" and tracking.is_alive(run.data.tags["process"], run.info.start_time / 1000):
            busy.append(name)
            continue
        try:
            tracking.send(run.info.run_id, tracking.client())
        except Exception as error:  # of whatever library below the client
            trace()
            reason = tracking.without_credentials(str(error))
            print(f"MLflow at {store} did not take the run of {name}: {reason}", file=sys.stderr)
            refused.append(name)
            if not _is_about_this_run(error):
                break
        else:
            sent.append(name)
    if not runs:
        print("There is nothing to send: the tracking server has every run.")
    if sent:
        print(f"MLflow at {store} has {len(sent)} more: {', '.join(sent)}.")
    if busy:
        print(f"Still at work, and sent the next time: {', '.join(busy)}.")
    if refused:
        left = len(runs) - len(sent)
        print(f"{left} of {len(runs)} runs are still to be sent: make sync again later.", file=sys.stderr)
    return 1 if refused else 0


def _is_about_this_run(error: Exception) -> bool:
    """Whether the server itself answered and found fault with one request, so that other runs may be taken."""
    from mlflow.exceptions import RestException

    return isinstance(error, RestException) and error.error_code not in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
