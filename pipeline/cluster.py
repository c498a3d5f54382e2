"""Ray, on this machine or on a cluster, and what its workers need: the code as Ray's working directory, the data from its object store."""

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from pipeline import ROOT, Refused

DATA = "data/train.safetensors"  # what every model's notebook reads
LEFT_HERE = [
    ".git", ".venv*", ".dvc", ".github", "data", "models", "reports", "metrics", "scratch", "unsent", "mlartifacts", "mlflow.db*", "tests", "docs",
    "**/__pycache__", ".pytest_cache", ".ruff_cache",
]


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Ray for the length of the block: the cluster at RAY_ADDRESS, or one of this machine's own that ends with it; Refused if there is none."""
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0", "RAY_DEDUP_LOGS": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0", "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": "",
        "RAY_gcs_rpc_server_connect_timeout_s": "20",
    }
    address = os.environ.get("RAY_ADDRESS")
    if not address:  # its ports are for this process and its children alone
        token = ROOT / ".dvc" / "tmp" / f"ray-token-{os.getpid()}"
        token.parent.mkdir(parents=True, exist_ok=True)
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    elif (reason := _silent(address)):
        raise Refused(f"Ray at {address} (RAY_ADDRESS) cannot be reached: {reason}.")
    import ray

    options = {"address": address} if address else {"address": "local", "num_cpus": os.cpu_count(), "include_dashboard": False}
    try:
        ray.init(
            **options, log_to_driver=False, logging_level="ERROR", configure_logging=False,
            runtime_env={"working_dir": str(ROOT), "excludes": LEFT_HERE},
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        said = " ".join(str(error).split())[:200]
        where = f"Ray at {address} (RAY_ADDRESS; RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH is its token)" if address else "Ray on this machine"
        raise Refused(f"{where} cannot be reached: {said}") from None
    try:
        yield
    finally:
        with quiet():
            ray.shutdown()
        if not address:
            token.unlink()


def _silent(address: str) -> str:
    """Why nothing listens at HOST:PORT, if so; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return ""  # `auto`: Ray looks for it
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        return " ".join(str(error).split())
    return ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ctrl-C is left for later: what is being ended should end whole."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def content(name: str) -> tuple:
    """The SHA-256 and the bytes of a file of the project, these as an array that Ray's workers share without a copy."""
    import numpy as np

    path = ROOT / name
    if not path.exists():
        raise Refused(f"{name} is not there yet: make run (or dvc pull) makes it.")
    array = np.fromfile(path, dtype=np.uint8)
    return hashlib.sha256(array).hexdigest(), array


def bring(name: str, known: tuple) -> None:
    """On a worker: put a file of the project in its place in the working directory, once for each node."""
    from filelock import FileLock

    digest, array = known
    path = ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    brought = path.with_name(f"{path.name}.sha256")
    with FileLock(f"{path}.lock"):
        if brought.exists() and brought.read_text() == digest:
            return
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        array.tofile(beside)
        os.replace(beside, path)
        brought.write_text(digest)


def place(kind: str) -> Path:
    """A temporary folder of this process, named so that it is found when the process was killed."""
    return Path(tempfile.mkdtemp(prefix=f"{kind}-{os.getpid()}-"))


def remove_dead() -> None:
    """Take away the folders of trials and stages on this machine whose worker was killed."""
    import psutil

    for folder in [each for kind in ("trial", "stage") for each in Path(tempfile.gettempdir()).glob(f"{kind}-*-*")]:
        number = folder.name.split("-")[1]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def needs(values: dict) -> dict[str, int]:
    """What a notebook with these parameters takes of a node: a GPU where it asks for one by name, else its threads."""
    return {"gpu": 1} if str(values.get("device", "")).startswith("cuda") else {"cpu": values.get("threads", 1)}


def cell_timeout() -> float:
    """Seconds that a cell may take: CELL_TIMEOUT, as for a stage."""
    try:
        return float(os.environ.get("CELL_TIMEOUT") or 3600)
    except ValueError:
        raise Refused(f"CELL_TIMEOUT must be a number of seconds above 0, found {os.environ['CELL_TIMEOUT']!r}.") from None


def settings() -> dict[str, str]:
    """The variables that a worker needs for tracking; they travel as data, since Ray shows its environments to who may look."""
    from pipeline.tracking import address

    store = address()
    return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_") and name != "MLFLOW_RUN_ID"} | {"MLFLOW_TRACKING_URI": store}


def reachable(store: str) -> None:
    """On a worker: Refused where the tracking store is a file of another machine."""
    if store.startswith("sqlite:///") and not Path(store.removeprefix("sqlite:///")).exists():
        raise Refused("The tracking store is a file on the machine that started this: set MLFLOW_TRACKING_URI (or make remote) to a server.")


def run_stage(name: str) -> int:
    """The stage `name` with its notebook executed by one task on the cluster; its outputs are brought back. 0 if every cell ran to its end."""
    import time

    from pipeline.stage import parameters, source

    started = time.monotonic()
    notebook, values = parameters.checked(name)
    source.strip_file(notebook)
    with connected():
        import ray
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        wanted = {f"num_{kind}s": number for kind, number in needs(values).items()}
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # no other node's end takes it away
        said = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        shown = threading.Thread(target=_show, args=(name, said), daemon=True)
        shown.start()
        # a node that is lost is no fault of the notebook; an error of the notebook comes back as a result and is not tried again
        task = ray.remote(max_retries=3, **wanted)(_execute).remote(name, values, ray.put(content(DATA)), settings(), said, cell_timeout())
        try:
            executed, failure, files = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, Refused):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            raise Refused(f"{name}: the cluster lost the task: {' '.join(str(error).split())[:300]}") from None
        said.put(None)
        shown.join(10)
    try:
        _write(name, executed, files)
    except OSError as error:
        raise Refused(f"{name}: its outputs could not be written ({error.strerror}); make room and run again.") from None
    if failure:
        print(f"{name}: notebooks/{name}.ipynb failed at {failure}", file=sys.stderr, flush=True)
        return 1
    print(f"{name}: every cell ran, {time.monotonic() - started:.1f} s on the cluster -> reports/{name}.html", flush=True)
    return 0


def _write(name: str, executed: dict, files: dict[str, bytes]) -> None:
    """What came back, each file whole or not at all; then the executed copy and its page."""
    import nbformat

    from pipeline.stage import page
    from pipeline.stage.files import write_whole

    for path, whole in files.items():
        beside = (ROOT / path).with_name(f".{Path(path).name}.{os.getpid()}")
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(whole)
        os.replace(beside, ROOT / path)
    copy = nbformat.from_dict(executed)
    write_whole(ROOT / "reports" / f"{name}.ipynb", nbformat.writes(copy) + "\n")
    write_whole(ROOT / "reports" / f"{name}.html", page.render(copy))


def _show(name: str, said) -> None:
    from pipeline.stage.execute import print_event

    while (event := said.get()) is not None:
        print_event(name, event)


def _execute(name: str, values: dict, data: tuple, variables: dict[str, str], said, timeout: float) -> tuple[dict, str, dict[str, bytes]]:
    """The task: execute the notebook on a worker; the executed copy, the failure if there was one, and the files that it wrote."""
    from pipeline.stage.execute import execute

    os.environ |= variables
    reachable(variables["MLFLOW_TRACKING_URI"])
    bring(DATA, data)
    remove_dead()
    folder = place("stage")
    try:
        executed, failure = execute(ROOT / "notebooks" / f"{name}.ipynb", values, timeout, output_root=folder, on_event=said.put)
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return dict(executed), str(failure or ""), files
