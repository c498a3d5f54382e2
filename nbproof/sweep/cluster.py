"""Ray on this machine or on a cluster, and what its workers need: the code, the data, a folder of their own."""

import contextlib
import getpass
import hashlib
import os
import queue
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from filelock import FileLock

from nbproof.notebook import files, tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root

DATA = ("data", "models", "metrics", "reports")  # what lies there comes from the object store, where a stage needs it
LEFT_HERE = [*(f"/{name}" for name in (*DATA, ".git", ".venv*", ".dvc", ".github", "scratch", "mlartifacts",
                                       "mlflow.db*", "tests", "docs")), "__pycache__", ".ipynb_checkpoints", ".*_cache"]
MACHINE = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]  # a socket's path must be short
ATTEMPTS = 4  # the first, and three more where a node is lost


class Lost(Exception):
    """A worker or its node ended in the middle of its work, which is no fault of the notebook."""


@contextlib.contextmanager
def connected(code: dict | None = None) -> Iterator[None]:
    """Ray for the length of the block: the cluster at RAY_ADDRESS, or one of this machine's own that ends with it.

    `code` is what the workers get, in the words of Ray's `runtime_env`; the project, if nothing is said.
    """
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": "", "RAY_gcs_rpc_server_connect_timeout_s": "20",
    }
    address = os.environ.get("RAY_ADDRESS", "")
    where = f"Ray at {address} (RAY_ADDRESS; RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH is its token)"
    code = code or {"working_dir": str(root()), "excludes": LEFT_HERE}
    with contextlib.ExitStack() as stack:
        if not address:  # its ports are for this process and its children alone
            where, options = "Ray on this machine", {"num_cpus": os.cpu_count(), "include_dashboard": False}
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", dir=_ours())))
            (folder / "token").write_text(secrets.token_hex(32))
            # As in nbproof.cli, for each process of Ray, which gives its own agents 15 s to start: too short for that
            # on a busy machine.
            (folder / "rfc3987_syntax.py").write_text("raise ImportError")
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
                           "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
        elif silent := _silent(address):
            raise UserError(f"{where} cannot be reached: {silent}.")
        else:
            options = {}
        try:
            import ray
        except ModuleNotFoundError:
            raise UserError("Ray is not installed here: install nbproof[sweep].") from None

        for left in (0,) if address else (2, 1, 0):
            try:
                ray.init(address=address or "local", **options, log_to_driver=False, logging_level="ERROR",
                         configure_logging=False, runtime_env=code)
                break
            except Exception as error:  # Ray raises bare Exception, too, where a node does not come up in time
                ray.shutdown()
                if not left:
                    raise UserError(f"{where} cannot be reached: {' '.join(str(error).split())[:200]}") from None
        try:
            yield
        finally:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must leave no process behind
            ray.shutdown()
            signal.signal(signal.SIGINT, before)


def _silent(address: str) -> str:
    """Why nothing listens at HOST:PORT, if so; Ray itself would try for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():  # else `auto`: Ray looks for it
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            return " ".join(str(error).split())
    return ""


def content(name: str) -> dict:
    """A file or folder of the project: its digest, and its files as arrays that a node's workers share uncopied."""
    import numpy as np

    path = root() / name
    if not path.exists():
        raise UserError(f"{name} is not there yet: make run (or dvc pull) makes it.")
    inside = [each for each in sorted(path.rglob("*")) if each.is_file()] if path.is_dir() else [path]
    arrays = {each.relative_to(path).as_posix(): np.fromfile(each, dtype=np.uint8) for each in inside}
    return {"digest": files.digest(path), "files": arrays, "folder": path.is_dir()}


def bring(name: str, known: dict) -> None:
    """On a worker: put a file or folder of the project in its place in the working directory, once for each node."""
    path = root() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    brought, beside = (path.with_name(f".{path.name}.{end}") for end in ("brought", os.getpid()))
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.exists() and brought.exists() and brought.read_text() == known["digest"]:
            return
        for inside, array in known["files"].items():
            (beside / inside).parent.mkdir(parents=True, exist_ok=True)
            array.tofile(beside / inside)
        if known["folder"]:
            beside.mkdir(exist_ok=True)
            shutil.rmtree(path, ignore_errors=True)
        os.replace(beside, path)
        brought.write_text(known["digest"])


def _ours() -> Path:
    """This user's folder for temporary files; nobody else can have put anything there."""
    folder = Path(tempfile.gettempdir()) / f"nbproof-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if os.name != "nt" and (folder.is_symlink() or folder.stat().st_uid != os.getuid()):
        raise UserError(f"{folder} belongs to somebody else: remove it, or set TMPDIR to a folder of your own.")
    return folder


@contextlib.contextmanager
def working_folder() -> Iterator[Path]:
    """A temporary folder, also for the temporary files of this process and its kernel, while the block lasts."""
    before = os.environ.get("TMPDIR")
    folder = Path(tempfile.mkdtemp(prefix=f"{MACHINE}-{os.getpid()}-", dir=_ours()))
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    try:
        yield folder
    finally:
        os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)
        tempfile.tempdir = None
        shutil.rmtree(folder, ignore_errors=True)


def remove_dead() -> None:
    """Remove the working folders that processes of this machine left when they were killed."""
    for folder in _ours().glob(f"{MACHINE}-*-*"):
        number = folder.name.split("-")[1]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


class Worker:
    """An actor of Ray: executes one notebook after another on its node; what it has imported stays."""

    def __init__(self):
        self.key, self.stopped = "", False

    def prepare(self, data: dict[str, dict], variables: dict[str, str]) -> None:
        """Put data and settings in place; UserError where the tracking store is a file of another machine."""
        store = variables["MLFLOW_TRACKING_URI"]
        if store.startswith("sqlite:///") and not Path(store.removeprefix("sqlite:///")).exists():
            raise UserError("The tracking store is a file on the machine that started this: set MLFLOW_TRACKING_URI "
                          "(or nbproof remote) to a server.")
        os.environ |= variables
        for name, known in data.items():
            bring(name, known)
        remove_dead()

    def notebook(self, path: str, values: dict, timeout: float, folder: Path, key: str = "") -> Iterator[dict]:
        """What the notebook at `path` says while it works; the last event is {"executed": ..., "failure": ...}."""
        from nbproof.runner.execute import execute_notebook

        self.key, self.stopped = key, False
        said = queue.Queue()
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(execute_notebook, root() / path, values, timeout, folder, said.put)
            done.add_done_callback(lambda _: said.put(None))
            yield from iter(said.get, None)
            self.key = ""
            try:
                executed, failure = done.result()
            except UserError as error:  # the kernel did not even start
                executed, failure = None, error
        yield {"executed": executed, "failure": failure}

    def stop(self, key: str) -> None:
        """End the kernel of the notebook `key`, beside its method, as soon as there is one."""
        while key and self.key == key:
            self.stopped = True
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            time.sleep(0.2)


def needs(values: dict) -> tuple[str, int]:
    """What a notebook with these values takes of a node: a GPU where `device` asks for one, else its `threads`."""
    return ("GPU", 1) if str(values.get("device", "")).startswith("cuda") else ("CPU", values.get("threads") or 1)


def hired(kind: type, values: dict):
    """A new worker for a notebook with these values, on whatever node has room for it."""
    import ray

    resource, number = needs(values)
    if not os.environ.get("RAY_ADDRESS") and (has := ray.cluster_resources().get(resource, 0)) < number:
        raise UserError(f"The notebook asks for {number} {resource} (threads, device), and this machine has {has:g}: "
                      "change them in params.yaml, or name a cluster by RAY_ADDRESS.")  # on one, a node may yet come
    return ray.remote(kind).options(max_concurrency=2, **{f"num_{resource.lower()}s": number}).remote()


def taken(reference):
    """What a worker gave; its exception as it was there; Lost where the worker is gone."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except ray.exceptions.RayError as error:
        raise Lost(" ".join(str(error).split())[:300]) from None


def data_of(stage) -> dict[str, dict]:
    """What of a stage's dependencies is data and no code, by its name."""
    return {dep: content(dep) for dep in stage.deps if dep.split("/")[0] in DATA}


def settings() -> dict[str, str]:
    """The variables that a worker needs for tracking; as data, since Ray shows environments to whoever may look."""
    ours = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_") and name != "MLFLOW_RUN_ID"}
    return ours | {"MLFLOW_TRACKING_URI": tracking.address()}
