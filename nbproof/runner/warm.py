"""One process a run that has imported what all of its notebooks import, and of which their kernels are forked.

A kernel that is forked is spared these imports, and gives the same bytes as one that is started: it has the same
environment, arguments and paths, and whatever an import would do otherwise outside of a kernel is not imported early.
Linux alone: elsewhere a fork of a process with such libraries is not safe. nbproof/runner/forked.py asks.
"""

import atexit
import contextlib
import gc
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from nbproof.runner import forked, sockets, tether

# pyarrow, which pandas imports, starts a thread for its memory; without it the memory is given back a little later.
NO_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
# What differs between two processes of one run, and no library reads while it is imported.
OF_ONE_STAGE = ("NBPROOF_", "DVC_", "IPYTHONDIR", "JPY_", "PWD", "OLDPWD", "SHLVL", "_", *NO_THREAD)
HARMLESS = {"/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"}
STARTED_WITH = dict(os.environ)


@contextlib.contextmanager
def process(libraries: list[str], environment: dict[str, str], at_once: bool = True) -> Iterator[dict[str, str]]:
    """The variable by which stages find a warm process while the block runs; none where the system has no safe fork.

    `libraries` are what it imports, each as `module` or `module:name`; `environment` is a kernel's. It begins
    `at_once`, or with the first kernel that is asked for.
    """
    if sys.platform != "linux":
        yield {}
        return
    with sockets.folder("warm-") as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(str(Path(folder) / "socket"))
        server.listen(64)
        warm = _Warm(server, folder, libraries, environment | NO_THREAD)
        thread = threading.Thread(target=warm.start, args=[at_once])
        thread.start()
        try:
            yield {forked.PLACE: str(Path(folder) / "socket")}
        finally:
            warm.end()
            thread.join()


class _Warm:
    """The warm process as the run sees it. Its standard input is a pipe of ours: by its end it knows that we ended."""

    def __init__(self, server: socket.socket, folder: str, libraries: list[str], environment: dict[str, str]):
        self.server, self.folder, self.libraries, self.environment = server, folder, libraries, environment
        self.guard, self.process, self.is_ready, self.ended = threading.Lock(), None, False, False

    def start(self, at_once: bool) -> None:
        """Start it, without a library that it names as unfit; where it ends otherwise, stages start their kernels."""
        while not (at_once or self.ended):
            at_once = bool(select.select([self.server], [], [], 0.1)[0])
        while (said := self._begun()) in self.libraries:
            self.libraries = [each for each in self.libraries if _top(each) != _top(said)]
        self.is_ready = said == "ready"
        self.server.close()  # if it has ended, whoever waits there learns that nobody answers

    def _begun(self) -> str:
        """Start it; what it says once all is imported: `ready`, or a library that is unfit."""
        emulator = shlex.split(self.environment.get("NBPROOF_EMULATOR", ""))  # of another processor, in tests
        command = [*emulator, sys.executable, "-m", "nbproof.runner.warm", str(self.server.fileno()), *self.libraries]
        with self.guard:
            if self.ended:
                return ""
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, pass_fds=[self.server.fileno()], text=True,
                start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with self.process.stdout:
            said = self.process.stdout.readline().strip()
        if said != "ready":
            self.process.stdin.close()
            self.process.wait()
        return said

    def end(self) -> None:
        """End it: at once while it imports, else once no kernel is left, which is when the stages have ended."""
        with self.guard:
            self.ended, process = True, self.process
        if process is None:
            return
        if not self.is_ready:
            process.kill()
        process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _top(library: str) -> str:
    return library.partition(":")[0].partition(".")[0]


def main(number: str, *libraries: str) -> None:
    """Import `libraries`, then fork a kernel for each stage that asks at the socket `number`, until the run ends."""
    atexit.register(os._exit, 0)  # as in a kernel, which is one of these: before what libraries register
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = socket.socket(fileno=int(number))
    folder, told = Path.cwd(), os.dup(1)
    said = os.open(folder / "said", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for each in (1, 2):
        os.dup2(said, each)
    wrong = unfit(libraries, said)
    os.write(told, f"{wrong or 'ready'}\n".encode())
    os.close(told)
    if wrong:
        return
    os.chdir(os.path.sep)
    gc.freeze()
    request, descriptors = serve(server)
    if request is None:
        shutil.rmtree(folder, ignore_errors=True)  # the run does it, unless it was killed
        return
    os.close(said)
    become(request, descriptors)


def unfit(libraries: tuple[str, ...], said: int) -> str:
    """Import `libraries`; the first of which a kernel would show more or get something else, or after which no
    fork is safe.

    `said` is the file that takes standard output and errors.
    """
    before = _held()
    from ipykernel import kernelapp  # noqa: F401
    from ipykernel.zmqshell import ZMQInteractiveShell
    from IPython.core.interactiveshell import InteractiveShell

    ZMQInteractiveShell.init_environment(None)  # what a kernel sets before its first cell; it uses no shell
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as ipykernel's init_gui_pylab
    asked = []

    def initialized(cls) -> bool:
        """Said by IPython to whoever asks for its shell: there is none yet, and in a kernel there is one."""
        asked.append(cls)
        return False

    InteractiveShell.initialized = classmethod(initialized)
    try:
        for library in libraries:
            try:
                _import(library)
            except ImportError:  # the notebook says so, or lives without it
                continue
            except Exception:  # a kernel shows it, where the notebook imports it
                return library
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            if asked or os.fstat(said).st_size or _held() - before:
                return library
    finally:
        del InteractiveShell.initialized  # the one of its base class is back
    return ""


def _held() -> set[str]:
    """What a fork must not find: threads, whoever started them, and open devices, an accelerator's for example."""
    held = {each.name for each in Path("/proc/self/task").iterdir()}
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was the one of this listing
            held.add(str(each.readlink()))
    return {each for each in held if each.isdigit() or each.startswith("/dev/") and each not in HARMLESS}


def _import(library: str) -> None:
    """Import a module, `a.b`, or do what `from a.b import c` does: `a.b:c`."""
    module, _, name = library.partition(":")
    __import__(module, fromlist=[name] if name else [])


def serve(server: socket.socket) -> tuple[dict | None, list[int]]:
    """Fork a keeper for each stage that asks. Returns None at the end of the run; and in each kernel its request."""
    ended, keepers = _ends_of_children(), set()
    run = True
    while run or keepers:
        ready, _, _ = select.select([server, 0, ended] if run else [ended], [], [])
        if ended in ready:
            os.read(ended, 512)
            keepers -= {pid for pid, _ in _reaped()}
        if run and 0 in ready and not os.read(0, 1):
            run = False
            server.close()
        elif server in ready:
            connection, _ = server.accept()
            if keeper := os.fork():
                keepers.add(keeper)
                connection.close()
                continue
            server.close()
            os.close(ended)
            os.close(signal.set_wakeup_fd(-1))
            request, descriptors = keep(connection)
            connection.close()
            return request, descriptors
    return None, []


def keep(connection: socket.socket) -> tuple[dict, list[int]]:
    """Fork the kernel that the stage at `connection` asks for, and be its parent. Returns in the kernel alone."""
    tether.die_with_parent()
    tether.adopt_orphans()
    try:
        request, descriptors = forked.receive(connection, 3)
    except (ConnectionError, ValueError):  # the stage has ended meanwhile
        os._exit(1)
    if reason := refusal(request):
        connection.sendall(json.dumps({"refused": reason}).encode() + b"\n")
        os._exit(0)
    if not (kernel := os.fork()):
        return request, descriptors
    for each in descriptors:
        os.close(each)
    told = f'{json.dumps({"pid": kernel, "keeper": os.getpid()})}\n'
    ended = _ends_of_children()
    while True:
        with contextlib.suppress(ConnectionError):  # the stage has ended, as is seen below
            connection.sendall(told.encode())
        told = ""
        ready, _, _ = select.select([connection, ended], [], [])
        if ended in ready:
            os.read(ended, 512)
            for pid, code in _reaped():
                if pid == kernel:
                    kernel, told = None, f"{code}\n"
        if connection in ready:
            numbers = _received(connection)
            if not numbers:
                end_all(kernel)
                os._exit(0)
            for number in numbers if kernel else ():
                _signal(kernel, number)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(64)
    except ConnectionError:
        return b""


def _signal(kernel: int, number: int) -> None:
    """Signal a kernel, which this process has not reaped yet, and its group, as jupyter_client does."""
    try:
        os.killpg(kernel, number)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(kernel, number)


def end_all(kernel: int | None) -> None:
    """Kill the kernel, and all that it started and left behind."""
    import psutil

    if kernel:
        os.kill(kernel, signal.SIGKILL)
    for _ in range(20):  # what is about to start a process may have done so meanwhile
        _reaped()
        left = psutil.Process().children(recursive=True)
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        if not left:
            return
        time.sleep(0.05)


def refusal(request: dict) -> str:
    """Why a kernel forked from here would not be as one that is started; empty where it would be."""
    def settings(variables: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in variables.items() if not name.startswith(OF_ONE_STAGE)}

    theirs, traits = settings(request["environment"]), json.loads(json.dumps(forked.traits()))
    mine = settings(STARTED_WITH)
    if differing := sorted(name for name in {*theirs, *mine} if theirs.get(name) != mine.get(name)):
        return f"its environment differs ({', '.join(differing)})"
    if differing := sorted(name for name in traits if request["traits"].get(name) != traits[name]):
        return f"its process differs ({', '.join(differing)})"
    names = {name.partition(".")[0] for name in sys.modules}
    local = {path.stem for path in Path(request["folder"]).iterdir()
             if path.suffix == ".py" or (path / "__init__.py").exists()}
    if hidden := sorted(names & local):
        return f"a file beside the notebook stands for a library ({', '.join(hidden)})"
    return ""


def become(request: dict, descriptors: list[int]) -> None:
    """Be a kernel: with the session, files, environment, arguments and paths of one that a stage starts."""
    os.setsid()
    for number, each in enumerate(descriptors):
        os.dup2(each, number)
        os.close(each)
    for number, handler in ((signal.SIGCHLD, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        signal.signal(number, handler)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for name in [each for each in sys.modules if each.partition(".")[0] == "nbproof"]:
        del sys.modules[name]  # it may have been edited since
    if numbers := sys.modules.get("numpy.random"):
        numbers.seed()
    sys.path[0] = str(Path.cwd())
    sys.orig_argv[:] = [sys.executable, "-m", forked.MODULE, *request["arguments"]]
    from nbproof.runner import kernel

    sys.argv[:] = [kernel.__file__, *request["arguments"]]
    kernel.main()


def _ends_of_children() -> int:
    """A file descriptor that can be read whenever a child of this process has ended."""
    read, write = os.pipe()
    for each in (read, write):
        os.set_blocking(each, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write)
    os.write(write, b"0")  # for one that ended before
    return read


def _reaped() -> list[tuple[int, int]]:
    """The children that have ended, each with its exit code; no zombie is left."""
    found = []
    with contextlib.suppress(ChildProcessError):  # there is none at all
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found.append((ended[0], os.waitstatus_to_exitcode(ended[1])))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
