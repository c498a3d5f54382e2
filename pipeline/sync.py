"""Sends to the tracking server what it did not take while a training ran: once, without duplicates, as often as it is called."""

import os
import shutil
import socket
import sys
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from pipeline import ROOT, Refused
from pipeline.tracking import address, client, without_credentials

UNSENT = ROOT / "unsent"  # an MLflow store of its own; see notebooks/digits/tracking.py
OURS = {"server_run"}  # tags that only say where a kept run belongs


def waiting() -> bool:
    """Whether runs are kept that no server has yet."""
    return (UNSENT / "mlflow.db").exists()


def sync() -> int:
    """Send every kept run that has ended; 0 if nothing is left."""
    if not waiting():
        print("There is nothing to send: the tracking store took everything.")
        return 0
    try:
        with FileLock(UNSENT / "sync.lock", timeout=0):
            return _sync()
    except Timeout:
        raise Refused("Another `make sync` is at work in this folder: wait for it to end.") from None


def _sync() -> int:
    from mlflow.exceptions import MlflowException

    kept = client(f"sqlite:///{(UNSENT / 'mlflow.db').as_posix()}")
    runs = _runs(kept)
    store = without_credentials(address())
    sent, busy, refused = [], [], []
    for run in runs:
        name = run.data.tags.get("notebook", run.info.run_name)
        if run.info.status == "RUNNING" and _is_alive(run):
            busy.append(name)
            continue
        try:
            _send(kept, run, client())
        except (MlflowException, OSError) as error:
            print(f"MLflow at {store} did not take the run of {name}: {without_credentials(str(error))}", file=sys.stderr)
            refused.append(name)
            if not _is_about_this_run(error):
                break
            continue
        _forget(kept, run)
        sent.append(name)
    with FileLock(UNSENT / "mlflow.db.lock"):  # under which a training makes its run
        if not _runs(kept):
            (UNSENT / "mlflow.db").unlink()
    if sent:
        print(f"MLflow at {store} has {len(sent)} more: {', '.join(sent)}.")
    if busy:
        print(f"Still being trained, and kept for the next time: {', '.join(busy)}.")
    if refused:
        print(f"{len(runs) - len(sent)} of {len(runs)} runs are still kept in unsent/; make sync again once the store takes them.", file=sys.stderr)
    return 1 if refused else 0


def _is_about_this_run(error: Exception) -> bool:
    """Whether the server itself answered and found fault with one request, so that other runs may be taken."""
    from mlflow.exceptions import RestException

    return isinstance(error, RestException) and error.error_code not in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")


def _runs(kept) -> list:
    """The kept runs, the oldest first."""
    experiments = [each.experiment_id for each in kept.search_experiments()]
    return kept.search_runs(experiments, order_by=["attributes.start_time ASC"]) if experiments else []


def _send(kept, run, server) -> None:
    """Bring the server's run to the state of the kept one. What the server has already it does not get twice."""
    from mlflow.entities import DatasetInput, Param

    target = _target(kept, run, server)
    server.log_batch(target, params=[Param(key, value) for key, value in run.data.params.items()])
    for key in run.data.metrics:
        rows = kept.get_metric_history(run.info.run_id, key)
        known = {(row.timestamp, row.step, row.value) for row in server.get_metric_history(target, key)}
        server.log_batch(target, metrics=[row for row in rows if (row.timestamp, row.step, row.value) not in known])
    if not server.get_run(target).inputs.dataset_inputs:
        server.log_inputs(target, datasets=[DatasetInput(each.dataset, each.tags) for each in run.inputs.dataset_inputs])
    for key, value in run.data.tags.items():
        if key not in OURS and not key.startswith("mlflow.runName"):
            server.set_tag(target, key, value)
    artifacts = _artifacts(run)
    if artifacts.exists() and any(artifacts.iterdir()):
        server.log_artifacts(target, str(artifacts))
    status = "KILLED" if run.info.status == "RUNNING" else run.info.status  # its process is gone
    server.set_terminated(target, status, run.info.end_time)


def _target(kept, run, server) -> str:
    """The server's run for a kept one: the one that the training began there, if it still is there, else one with its key, else a new one."""
    if (begun := run.data.tags.get("server_run")) and _has(server, begun):
        return begun
    name = kept.get_experiment(run.info.experiment_id).name
    known = server.get_experiment_by_name(name)
    experiment = known.experiment_id if known else server.create_experiment(name, _artifact_root(address()))
    if found := server.search_runs([experiment], f"tags.key = '{run.data.tags['key']}'", max_results=1):
        return found[0].info.run_id
    tags = {key: value for key, value in run.data.tags.items() if key not in OURS}
    return server.create_run(experiment, start_time=run.info.start_time, run_name=run.info.run_name, tags=tags).info.run_id


def _has(server, run_id: str) -> bool:
    """Whether this server has the run; it may have been deleted, or begun on another server."""
    from mlflow.exceptions import MlflowException

    try:
        return server.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _artifact_root(store: str) -> str | None:
    return (ROOT / "mlartifacts").as_uri() if store.startswith("sqlite:") else None


def _artifacts(run) -> Path:
    from mlflow.utils.file_utils import local_file_uri_to_path

    return Path(local_file_uri_to_path(run.info.artifact_uri))


def _forget(kept, run) -> None:
    """The server has it: take it out of unsent/."""
    kept.delete_run(run.info.run_id)
    shutil.rmtree(_artifacts(run).parent, ignore_errors=True)


def _is_alive(run) -> bool:
    """Whether the training that writes this run may still be at work: on this machine its process tells, elsewhere nobody knows."""
    host, _, pid = run.data.tags.get("process", "").partition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        return psutil.Process(int(pid)).create_time() <= run.info.start_time / 1000 + 1 and int(pid) != os.getpid()
    except psutil.NoSuchProcess:
        return False
