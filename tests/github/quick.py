"""Python commands without their start-up: a process that has imported the packages, and forks for each command.

`python3 quick.py SOCKET` serves; `python3 quick.py SOCKET nbproof|dvc WORDS...` has it run one command with this
process's folder, variables, terminal and exit code. A step of a workflow takes milliseconds instead of seconds so.
"""

import importlib
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

IMPORTS = ("nbproof.cli", "nbproof.pipeline.run", "nbproof.github.command", "nbproof.github.publish", "nbproof.github.post",
           "nbproof.github.results", "nbproof.report", "nbproof.runner.execute", "nbproof.runner.html",
           "nbproof.tracking.registry", "dvc.cli", "dvc.commands.repro", "dvc.repo.reproduce", "dvc.repo.status",
           "dvc.repo.commit", "dvc.fs", "dvc_http", "dvc_s3", "mlflow")
MAINS = {"nbproof": ("nbproof.cli", "main"), "dvc": ("dvc.cli", "main")}


def ask(address: str, words: list[str]) -> int:
    """Have the server run `words`; its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        asked = json.dumps([words, str(Path.cwd()), dict(os.environ)]).encode()
        socket.send_fds(connection, [len(asked).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(asked)
        return int(connection.recv(8) or b"1")


def serve(address: str) -> None:
    """Answer until this process is ended."""
    for name in IMPORTS:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(16)
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> None:
    """In a fork: become the command, in a fork of its own so that its end can be told."""
    head, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
    asked = b""
    while len(asked) < int.from_bytes(head, "big"):
        asked += connection.recv(1 << 16)
    words, folder, variables = json.loads(asked)
    if not (child := os.fork()):
        connection.close()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        sys.argv, sys.executable = words, variables["QUICK_PYTHON"]
        os.environ.pop("NBPROOF_STARTED_BY", None)  # a fork of this server is no child of the run that asked for it
        os._exit(_run(*MAINS[words[0]], words[1:]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(str(code).encode())
    os._exit(0)


def _run(module: str, name: str, words: list[str]) -> int:
    main = getattr(importlib.import_module(module), name)
    try:
        code = main(words) if module == "dvc.cli" else main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(code, str):
        print(code, file=sys.stderr, flush=True)
        return 1
    return int(code or 0)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
