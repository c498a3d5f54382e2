"""Commands without their start-up: a process imports the packages once and forks for each command.

`python warm.py SOCKET` serves until its standard input ends. `python warm.py SOCKET nbproof|dvc
WORDS...` runs one command in a fork of that server, with the caller's folder, variables, streams
and exit code. The tests call it by the class `Warm`; scripts of a test, and commands that a command
starts, by the programs in `Warm.programs`.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

MAINS = {"nbproof": "nbproof.cli", "dvc": "dvc.cli"}
IMPORTS = (
    "nbproof.cli", "nbproof.pipeline.run", "nbproof.pipeline.stage", "nbproof.pipeline.verify",
    "nbproof.pipeline.compare", "nbproof.pipeline.index", "nbproof.runner.execute",
    "nbproof.runner.html", "nbproof.notebook.tracking", "nbproof.tracking.registry",
    "nbproof.review.render", "nbproof.review.ci", "nbproof.review.artifact",
    "papermill.execute", "nbconvert", "jupyter_client.manager",
    "mlflow", "mlflow.store.tracking.sqlalchemy_store", "dvc.cli", "dvc.cli.parser", "dvc.repo",
    "dvc.repo.commit", "dvc.repo.reproduce", "dvc.repo.status", "dvc.stage.cache", "dvc.fs",
    "dvc_http", "dvc_s3",
)
PROGRAM = '#!/bin/sh\nexec "{python}" -I -S "{warm}" "{address}" {name} "$@"\n'
# A Python whose `-m nbproof` and `-m dvc` are forks; anything else is the real one's.
PYTHON = """\
#!/bin/sh
[ "$1" = -u ] && shift
if [ "$1" = -m ] && {{ [ "$2" = nbproof ] || [ "$2" = dvc ]; }}; then
  shift; exec "{python}" -I -S "{warm}" "{address}" "$@"
fi
exec "{python}" "$@"
"""


class Warm:
    """The server of this process, started on first use and ended with it."""

    def __init__(self) -> None:
        self._process, self._starting = None, threading.Lock()

    def start(self) -> None:
        """Start the server and wait until it answers; nothing to do where it runs."""
        with self._starting:
            if self._process:
                return
            folder = Path(tempfile.mkdtemp(prefix="warm-"))
            self.address, self.python = folder / "socket", folder / "python"
            self.programs = folder / "bin"
            self.programs.mkdir()
            known = {"python": sys.executable, "warm": __file__, "address": self.address}
            texts = {self.python: PYTHON.format(**known)}
            texts |= {self.programs / name: PROGRAM.format(name=name, **known) for name in MAINS}
            for path, text in texts.items():
                path.write_text(text, encoding="utf-8")
                path.chmod(0o755)
            environment = {name: value for name, value in os.environ.items()
                           if not name.startswith("PYTHON")}
            # Else pyarrow starts a thread when it is imported, and no fork has it.
            environment["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
            # Its standard input ends with this process, however that ends, and the server with it.
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(self.address)], env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
        while not self.address.exists():
            assert self._process.poll() is None, "tests/warm.py did not start"
            time.sleep(0.02)

    def run(self, words: list[str], folder: Path,
            environment: dict[str, str]) -> subprocess.CompletedProcess:
        """Run `nbproof ...` or `dvc ...` in `folder`; its output has what it wrote to stderr."""
        self.start()
        environment = environment | {"PATH": f"{self.programs}{os.pathsep}{environment['PATH']}"}
        with tempfile.TemporaryFile() as output, Path(os.devnull).open("rb") as nothing:
            code = request(self.address, words, str(folder), environment,
                           [nothing.fileno(), output.fileno(), output.fileno()])
            output.seek(0)
            text = output.read().decode(errors="replace").replace("\r\n", "\n")
        return subprocess.CompletedProcess(words, code, text)


def request(address: Path, words: list[str], folder: str, environment: dict[str, str],
            streams: list[int]) -> int:
    """Have the server at `address` run `words`; return the exit code.

    The command is killed when the connection ends before it, after half an hour at the latest.
    """
    with socket.socket(socket.AF_UNIX) as connection, tempfile.TemporaryFile("w+") as wanted:
        json.dump([words, folder, environment], wanted)
        wanted.seek(0)
        connection.settimeout(1800)
        connection.connect(str(address))
        socket.send_fds(connection, [b"-"], [wanted.fileno(), *streams])
        return int(connection.recv(8) or b"1")


def serve(address: str) -> None:
    """Fork for each request until the standard input ends."""
    del sys.path[0]  # the folder of this file
    before = dict(os.environ)
    for name in IMPORTS:
        try:
            importlib.import_module(name)
        except Exception as error:  # the command that needs it will fail, too
            print(f"tests/warm.py cannot import {name}: {error}", file=sys.stderr)
    defaults = {name: value for name, value in os.environ.items() if before.get(name) != value}
    gc.collect()
    gc.freeze()  # forks share these objects' pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"{address}.new")
            listening.listen(64)
            os.replace(f"{address}.new", address)  # whoever sees it can connect
            while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
                connection, _ = listening.accept()
                if os.fork() == 0:
                    listening.close()
                    _attend(connection, defaults)
                connection.close()
    finally:
        shutil.rmtree(Path(address).parent, ignore_errors=True)


def _attend(connection: socket.socket, defaults: dict[str, str]) -> None:
    """Turn this fork into the command that is requested, and send its exit code at its end."""
    os.setsid()
    _, (wanted, *streams), _, _ = socket.recv_fds(connection, 1, 4)
    threading.Thread(target=_end_with, args=[connection], daemon=True).start()
    with os.fdopen(wanted) as file:
        words, folder, environment = json.load(file)
    code = _become(words, folder, defaults | environment, streams)
    with contextlib.suppress(OSError):
        connection.sendall(str(code).encode())
    os._exit(code)


def _end_with(caller: socket.socket) -> None:
    """Kill the command, and what is in its group, when the connection to its caller ends."""
    caller.recv(1)
    os.killpg(0, signal.SIGKILL)


def _become(words: list[str], folder: str, environment: dict[str, str],
            streams: list[int]) -> int:
    """Run the command `words` as a new process of it would; return its exit code."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable = environment.get("WARM_PYTHON", sys.executable)
    sys.argv = list(words)
    code = _run(words[0], words[1:])
    threading._shutdown()  # as at the end of any program, without taking its modules apart
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


def _run(name: str, words: list[str]) -> int:
    """Call the program's main function; return its exit code."""
    try:
        main = importlib.import_module(MAINS[name]).main
        code = main(words) if name == "dvc" else main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    return int(code or 0)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        sys.exit(request(sys.argv[1], sys.argv[2:], str(Path.cwd()), dict(os.environ), [0, 1, 2]))
